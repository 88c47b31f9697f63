"""Uninstall: what goes from which host, what keeps it from going, and the run that does it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, RefusedError
from onprem_llm.hosts import Current, HostState
from onprem_llm.output import Progress, human_seconds
from onprem_llm.planning.staging import OWN_IMAGES
from onprem_llm.ray_running import ray_deployments
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.rendering.registry import PROJECT as REGISTRY
from onprem_llm.run_events import RunResult
from onprem_llm.runner import run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import Site

# Folders that have nothing that a person made.
OWN_FOLDERS = {"gateway", REGISTRY, HEAD_PROJECT, WORKER_PROJECT}


@dataclass(frozen=True)
class Removal:
    """An order for each host, and lines for a person."""

    orders: Mapping[str, Mapping[str, object]]
    rows: tuple[tuple[str, str, str, str], ...]
    """host, projects, what else goes, what stays"""
    notes: tuple[str, ...]


def plan_removal(current: Current, site: Site, *, purge: bool, purge_deployments: bool) -> Removal:
    """Say what goes. InvalidError while deployments are there and nobody said that they may go. Pure."""
    deployments = deployed(current)
    if deployments and not purge_deployments:
        raise InvalidError(
            f"found deployments on these hosts or in their book: {', '.join(deployments)}; expected none",
            hint="onprem-llm down NAME for each, or --purge-deployments to have them removed now",
        )
    there = sorted(ray_deployments(current.book)) if site.ray.address else []
    if there:
        raise InvalidError(
            f"found {', '.join(there)} on the Ray cluster at {site.ray.address}, which would stay there; expected none",
            hint="onprem-llm down NAME for each; or, where that cluster is gone, take onprem_llm_site.ray out",
        )
    nodes = [host.name for host in current.hosts if {HEAD_PROJECT, WORKER_PROJECT} & set(host.projects)]
    if nodes and not purge_deployments:
        raise InvalidError(
            f"found nodes of the Ray cluster on {', '.join(nodes)}; expected none",
            hint="onprem-llm cluster drain HOST for a worker, cluster down for all; or --purge-deployments to have "
            "them removed now, with what they serve",
        )
    orders = {host.name: _order(host, site, purge) for host in current.hosts}
    rows = tuple(_row(host, purge) for host in current.hosts)
    notes = []
    if purge and site.weights_dir.shared:
        notes.append(f"{site.weights_path} is shared: its weights are gone for every host that mounts it")
    return Removal(orders, rows, tuple(notes))


def deployed(current: Current) -> list[str]:
    """Return the deployments that the book has or that containers belong to."""
    booked = {name for host in current.hosts if host.book for name in host.book.deployments}
    running = {
        container.labels.get("onprem-llm.deployment")
        for host in current.hosts
        for project in host.projects.values()
        for container in project.containers
    }
    return sorted(booked | {name for name in running if name})


def refuse_if_locked(current: Current) -> None:
    """RefusedError while another run is at work."""
    for host in current.hosts:
        if host.lock is not None:
            since = f", for {human_seconds(host.lock.age)}" if host.lock.age is not None else ""
            raise RefusedError(
                f"{host.name}: another run holds the lock: {host.lock.owner}{since}",
                hint="wait for it; if that run is dead, add --break-lock",
            )


def _order(host: HostState, site: Site, purge: bool) -> dict[str, object]:
    images = {container.image for project in host.projects.values() for container in project.containers}
    images |= {image.id for image in host.images if any(tag.startswith(OWN_IMAGES) for tag in image.tags)}
    # Left by passing on an image that was cut off, before there was any project.
    left = [] if not host.strays or REGISTRY in host.projects else [(REGISTRY, site.project_path(REGISTRY))]
    return {
        "purge": purge,
        "data_root": site.data_root,
        "weights_dir": site.weights_path,
        # What a gateway needs again is in the book's folder; what a registry has is on the control host.
        "projects": [
            {"name": name, "path": path, "purge": purge or name in OWN_FOLDERS}
            for name, path in [*((project.name, project.path) for project in host.projects.values()), *left]
        ],
        "weights": [stored.path for stored in host.weights.values()] if purge else [],
        "images": sorted(images) if purge else [],
    }


def _row(host: HostState, purge: bool) -> tuple[str, str, str, str]:
    goes = ["what bootstrap installed", "healer", "firewall"]
    kept = ["weights", "images", "chats", "keys"] + (["the book", "the CA"] if host.book else [])
    projects = ", ".join(host.projects) or "none"
    return host.name, projects, ", ".join(goes + (kept if purge else [])), "nothing" if purge else ", ".join(kept)


def carry_out(removal: Removal, connection: Connection, progress: Progress) -> RunResult:
    """Take everything off the hosts; failed hosts are in the result."""
    with run_folder() as folder:
        path = write_orders(folder, 0, removal.orders)
        return run(
            "uninstall.yml",
            connection,
            hosts=list(removal.orders),
            variables={"onprem_llm_order_file": str(path)},
            progress=progress,
            title="Uninstalling",
        )


def told(result: RunResult) -> dict[str, Sequence[str]]:
    """Return host to the sentences about what stays there, as the roles say it."""
    found = {}
    for host, values in result.returned.items():
        left = [f"left in place: {path}" for path in values.get("left", [])]
        kept = [f"image {image[:19]} stays: {why}" for image, why in values.get("images_kept", {}).items()]
        found[host] = [*values.get("notes", []), *kept, *left]
    return {host: lines for host, lines in found.items() if lines}
