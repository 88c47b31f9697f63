"""Projects that go while what they kept stays: the order of remove.yml."""

from collections.abc import Iterable

from onprem_llm.planning.types import Order
from onprem_llm.spec.site import Site


def removal(site: Site, projects: Iterable[str], *, purge: bool = False) -> Order:
    """Return one host's order: these projects, with their data if `purge`; neither weights, images nor keys."""
    entries = [{"name": name, "path": site.project_path(name), "purge": purge} for name in projects]
    return {"projects": entries, "weights": [], "images": [], "keys": []}
