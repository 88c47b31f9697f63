"""The steps of a plan: which playbook, on which hosts, with which orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.book_state import BookEntry
from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import reached_at
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.removal import removal
from onprem_llm.planning.replica_orders import empty_order, project_order
from onprem_llm.planning.staging import HostWork
from onprem_llm.planning.types import UI_PROJECT, Step
from onprem_llm.planning.web_ui import PlannedUi
from onprem_llm.rendering.open_webui import START_SECONDS
from onprem_llm.spec.site import Site


@dataclass(frozen=True, slots=True)
class Release:
    """A revision of a deployment: its number, its text and images in the book, its replicas."""

    name: str
    revision: int
    text: str
    images: Mapping[str, str]
    fleet: Fleet


def stage_step(site: Site, work: Mapping[str, HostWork], gateway: HostState) -> Step | None:
    """Return the step that brings images and weights; None where nothing is missing.

    Hosts that pull from the site's own registry get what makes docker believe it: the root of the site's authority.
    """
    registry = (
        site.registry.model_dump(mode="json", include={"address", "ca_file", "username"}) if site.registry else None
    )
    orders = {
        name: {
            "images": [image.order for image in part.images],
            "weights": [part.weights.order] if part.weights and not part.weights.chain else [],
            "registry": registry,
            **_trust(site, part, gateway),
        }
        for name, part in work.items()
        if part.images or (part.weights and not part.weights.chain)
    }
    return Step("stage", "Bring images and weights", orders) if orders else None


def _trust(site: Site, part: HostWork, gateway: HostState) -> dict[str, object]:
    own = f"{gateway.cluster_address}:{site.registry_port}"
    pulled = [str(order["pull"]) for image in part.images if (order := image.order) and order["pull"]]
    if site.registry_dir is None or not any(place.startswith(f"{own}/") for place in pulled):
        return {}
    return {"trust": {"address": own, "ca_host": gateway.name}}


def ui_step(site: Site, ui: PlannedUi | None, gateway: HostState) -> Step | None:
    """Return the step that starts or changes the page; None where it stays as it is."""
    if ui is None or ui.outcome is None or not ui.outcome.needed:
        return None
    page: dict[str, object] = {
        "url": reached_at(ui.claim, gateway),
        "method": "GET",
        "path": "/health",
        "body": None,
        "status": 200,
        "timeout": START_SECONDS,
        "request_timeout": 10,
        "key": None,
    }
    values = sorted(site.open_webui.secret_env)
    project = project_order(site, ui.outcome, ui.secrets, values, wait=START_SECONDS, readiness=page)
    keys = [key for entry in ui.secrets for key in entry.keys]
    order = {**empty_order(keys, gateway), "projects": [project]}
    return Step("apply", "Start Open WebUI", {gateway.name: order})


def remove_ui_step(site: Site, ui: PlannedUi | None, gateway: HostState) -> Step | None:
    """Return the step that removes a page that nobody needs."""
    if ui is None or ui.removed is None:
        return None
    return Step("remove", "Remove Open WebUI", {gateway.name: removal(site, [UI_PROJECT])})


def pending_step(
    gateways: Sequence[HostState], entry: BookEntry | None, release: Release, *, on_ray: bool = False
) -> Step | None:
    """Return the step that says which revision begins; None where no replica gets its number. `on_ray`: Ray's do.

    In the copies of the book too: whichever is read when the change was cut off lets old and new replicas in. What a
    failed first deploy started is nowhere in the book, so that its number can be given again.
    """
    begins = on_ray or any(r.revision == release.revision and r.outcome.needed for r in release.fleet.projects)
    if entry is None or release.revision == entry.revision or not begins:
        return None

    def step(title: str, pending: set[int], undo: tuple[Step, ...] = ()) -> Step:
        order = {"deployment": release.name, "pending": sorted(pending), "last": release.revision}
        return Step("pending", title, {host.name: order for host in gateways}, undo)

    number, so_far = release.revision, set(entry.pending)
    back = step(f"Write that revision {number} is taken back", so_far)
    return step(f"Write that revision {number} begins", {*so_far, number}, (back,))


def record_step(gateway: HostState, entry: BookEntry | None, release: Release, verb: str) -> Step | None:
    """Return the step that writes a revision into the book; None where the book has it."""
    placement = {r.project: _at([rank.host.name for rank in r.ranks], r.revision) for r in release.fleet.replicas}
    if entry is not None:
        silent = release.fleet.silent.items()
        placement |= {project: _at(entry.replicas[project].hosts, rev) for project, rev in silent}
        known = {project: _at(at.hosts, at.revision) for project, at in entry.replicas.items()}
        same = (entry.revision, entry.model_yaml, dict(entry.images))
        if (
            not entry.pending
            and same == (release.revision, release.text, dict(release.images))
            and known == placement
            and verb != "restart"
        ):
            return None
    name = release.name
    order = {
        "deployment": name,
        "revision": release.revision,
        "model_yaml_file": "model.yaml",
        "images": release.images,
        "placement": placement,
        "event": {"action": verb, "deployment": name, "revision": release.revision},
    }
    return Step("record", "Write the book", {gateway.name: order})


def _at(hosts: Sequence[str], revision: int) -> dict[str, object]:
    """Return where a replica is, as the book has it: `members` are the further hosts of one on several."""
    more = {"members": list(hosts[1:])} if len(hosts) > 1 else {}
    return {"host": hosts[0], "revision": revision, **more}
