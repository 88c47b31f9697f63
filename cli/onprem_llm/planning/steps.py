"""The steps of a plan: which playbook, on which hosts, with which orders."""

from collections.abc import Mapping
from dataclasses import dataclass

from onprem_llm.hosts import BookEntry, HostState
from onprem_llm.planning.addresses import reached_at
from onprem_llm.planning.replicas import PlannedReplica, project_order, readiness
from onprem_llm.planning.staging import HostWork
from onprem_llm.planning.types import UI_PROJECT, Step, WantedDeployment
from onprem_llm.planning.web_ui import PlannedUi
from onprem_llm.rendering.open_webui import START_SECONDS
from onprem_llm.spec.site import Site


@dataclass(frozen=True, slots=True)
class Release:
    """A revision of a deployment: its number, its text and images in the book, its replicas."""

    revision: int
    text: str
    images: Mapping[str, str]
    replicas: tuple[PlannedReplica, ...]


def stage_step(site: Site, work: Mapping[str, HostWork]) -> Step | None:
    """Return the step that brings images and weights; None where nothing is missing."""
    registry = (
        site.registry.model_dump(mode="json", include={"address", "ca_file", "username"}) if site.registry else None
    )
    orders = {
        name: {
            "images": [image.order for image in part.images],
            "weights": [part.weights.order] if part.weights else [],
            "registry": registry,
        }
        for name, part in work.items()
    }
    return Step("stage", "Bring images and weights", orders) if orders else None


def apply_step(
    site: Site, item: WantedDeployment, replicas: tuple[PlannedReplica, ...], gateway: HostState, *, proven: bool
) -> Step | None:
    """Return the step that writes and starts the replicas that differ.

    `proven`: the book has this revision, so every replica has answered a real request once. Where it has not (the run
    before was cut off), replicas that are as wanted are asked too.
    """
    deployment = item.deployment
    orders: dict[str, dict[str, object]] = {}
    for replica in replicas:
        if replica.outcome.needed or not proven:
            order = orders.setdefault(replica.host.name, _empty_order(gateway, [deployment.name]))
            project = project_order(
                site,
                replica.outcome,
                replica.secrets,
                sorted(deployment.secret_env),
                wait=deployment.timeouts.start,
                readiness=readiness(deployment, replica.claim, replica.host),
            )
            order["projects"] = [*_projects(order), project]
    if not orders:
        return None
    # The gateway host makes the key, so it takes part even where it starts nothing.
    orders.setdefault(gateway.name, _empty_order(gateway, [deployment.name]))
    return Step("apply", f"Start {deployment.name}", orders)


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
        "key": None,
    }
    values = sorted(site.open_webui.secret_env)
    project = project_order(site, ui.outcome, ui.secrets, values, wait=START_SECONDS, readiness=page)
    keys = [key for entry in ui.secrets for key in entry.keys]
    order = {**_empty_order(gateway, keys), "projects": [project]}
    return Step("apply", "Start Open WebUI", {gateway.name: order})


def _empty_order(gateway: HostState, keys: list[str]) -> dict[str, object]:
    return {"keys": keys, "keys_host": gateway.name, "projects": []}


def _projects(order: Mapping[str, object]) -> list[object]:
    found = order["projects"]
    return found if isinstance(found, list) else []


def remove_step(
    site: Site, replicas: tuple[PlannedReplica, ...], ui: PlannedUi | None, gateway: HostState
) -> Step | None:
    """Return the step that removes replicas from hosts that they left, and a page that nobody needs."""
    leaving = [(host, replica.placement.project) for replica in replicas for host in replica.placement.elsewhere]
    if ui and ui.removed:
        leaving.append((gateway.name, UI_PROJECT))
    orders: dict[str, dict[str, object]] = {}
    for host, project in leaving:
        order = orders.setdefault(host, {"projects": [], "weights": [], "images": [], "keys": []})
        entry = {"name": project, "path": site.project_path(project), "purge": False}
        order["projects"] = [*_projects(order), entry]
    return Step("remove", "Remove what moved away", orders) if orders else None


def record_step(name: str, gateway: HostState, entry: BookEntry | None, release: Release) -> Step | None:
    """Return the step that writes a new revision into the book; None where the book has it."""
    known = entry and (entry.revision, entry.model_yaml, dict(entry.images))
    if known == (release.revision, release.text, dict(release.images)):
        return None
    order = {
        "deployment": name,
        "revision": release.revision,
        "model_yaml_file": "model.yaml",
        "images": release.images,
        "event": {"action": "deploy", "deployment": name, "revision": release.revision},
    }
    return Step("record", "Write the book", {gateway.name: order})
