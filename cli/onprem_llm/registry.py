"""Which digest a registry has for a tag. The gateway host's engine asks: the control host may not reach it."""

from collections.abc import Sequence

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.output import Progress
from onprem_llm.planning.staging import where_from
from onprem_llm.planning.types import ImageSource
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import Site


def resolve(
    refs: Sequence[str], site: Site, gateway: str, connection: Connection, progress: Progress
) -> dict[str, ImageSource]:
    """Return ref -> source with `pull: repo@sha256:…`. InvalidError says what the registry answered."""
    asked = {ref: at_registry(ref, site) for ref in refs}
    with run_folder() as folder:
        orders = write_orders(folder, 0, {gateway: {"refs": sorted(set(asked.values()))}})
        result = run(
            "resolve.yml",
            connection,
            hosts=[gateway],
            variables={"onprem_llm_seam": str(folder), "onprem_llm_order_file": str(orders)},
            progress=progress,
            title="Asking the registry",
        )
    raise_for_failures(result, doing="asking the registry for image digests")
    answer = result.returned.get(gateway, {})
    digests, errors = answer.get("resolved", {}), answer.get("resolve_errors", {})
    missing = [ref for ref in refs if not digests.get(asked[ref])]
    if missing:
        raise InvalidError(
            f"image {', '.join(missing)} is on no host, in no archive, and cannot be had from a registry",
            details="\n".join(f"{gateway}: {asked[ref]}: {errors.get(asked[ref], 'not there')}" for ref in missing),
            hint=f"{'; '.join(where_from(ref) for ref in missing)}; put its archive into the folder that "
            "onprem_llm_site.images_dir names, or push it to the registry that onprem_llm_site.registry names",
        )
    return {ref: ImageSource(ref, pull=f"{repository(asked[ref])}@{digests[asked[ref]]}") for ref in refs}


def at_registry(ref: str, site: Site) -> str:
    """Return the reference at the site's registry: its address before the repository, without another registry's host.

    `ghcr.io/open-webui/open-webui:v1` at registry.local:5000 is `registry.local:5000/open-webui/open-webui:v1`.
    """
    return ref if site.registry is None else at_address(ref, site.registry.address)


def at_address(ref: str, address: str) -> str:
    """Return the reference at a registry of that address."""
    first, slash, rest = ref.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return f"{address}/{rest if is_host else ref}"


def repository(ref: str) -> str:
    """Return a reference without its tag."""
    head, slash, last = ref.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
