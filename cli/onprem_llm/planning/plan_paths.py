"""Folders in a plan: what was edited by hand must not have root write or remove anything but what this site has there.

plan_names.py looks at names as soon as a plan is read; where a path may lead, only the site's settings say.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.planning.plan_names import check_name
from onprem_llm.planning.types import Plan, Step
from onprem_llm.spec.site import Site

# Absolute, and yet no place on a host: what is read on the control host, a request's path, a person's words.
ELSEWHERE = {"archive", "source", "readiness", "event"}
# Folders beside the projects' own, which no project may be called after: removing it would take them along.
NO_PROJECTS = {"secrets", "weights", "packages", "incoming", "backup"}


def check_paths(plan: Plan, site: Site) -> None:
    """Raise ValueError, which names the place in the plan, for a path on a host that is not this site's."""
    for number, step in enumerate(plan.steps):
        _check_step(step, site, f"steps.{number}")


def _check_step(step: Step, site: Site, where: str) -> None:
    for host, order in step.orders.items():
        _check_order(order, site, f"{where}.orders.{host}")
    for number, back in enumerate(step.undo):
        _check_step(back, site, f"{where}.undo.{number}")


def _check_order(order: Mapping[str, object], site: Site, where: str) -> None:
    for number, entry in enumerate(_listed(order.get("projects"))):
        _check_project(entry, site, f"{where}.projects.{number}")
    if "project" in order:
        _check_project(order["project"], site, f"{where}.project")
    for number, entry in enumerate(_listed(order.get("weights"))):
        _check_weights(entry, site, f"{where}.weights.{number}")
    for at, path in _absolute(order, where):
        _expect(_is_below(path, (site.data_root, site.weights_path)), path, f"a path below {site.data_root}", at)


def _check_project(entry: object, site: Site, where: str) -> None:
    if not is_mapping(entry):
        raise ValueError(f"{where}: found {entry!r:.60}, expected a mapping")
    name, path = str(entry.get("name")), entry.get("path")
    _expect(name not in NO_PROJECTS, name, "a project's name", f"{where}.name")
    _expect(path == site.project_path(name), path, site.project_path(name), f"{where}.path")
    # A weights_dir.path of the site's may be a folder of data_root, or lie deeper in one.
    _expect(not f"{site.weights_path}/".startswith(f"{path}/"), path, "no folder that has weights", f"{where}.path")


def _check_weights(entry: object, site: Site, where: str) -> None:
    """Weights that come are a mapping with their id, those that go are a path."""
    name = entry.get("id") if is_mapping(entry) else PurePosixPath(str(entry)).name
    path = entry.get("path") if is_mapping(entry) else entry
    check_name(name, where)
    _expect(path == f"{site.weights_path}/{name}", path, f"a folder in {site.weights_path}", where)


def _absolute(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Yield every absolute path in an order, with its place."""
    if isinstance(value, str) and value.startswith("/"):
        yield where, value
    elif is_mapping(value):
        for key, one in value.items():
            if key not in ELSEWHERE:
                yield from _absolute(one, f"{where}.{key}")
    else:
        for number, one in enumerate(_listed(value)):
            yield from _absolute(one, f"{where}.{number}")


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return ".." not in PurePosixPath(path).parts and any(path.startswith(f"{folder}/") for folder in folders)


def _expect(holds: bool, found: object, expected: str, where: str) -> None:
    if not holds:
        raise ValueError(f"{where}: found {found!r:.100}, expected {expected}")


def _listed(value: object) -> list[object]:
    return list(value) if is_list(value) else []
