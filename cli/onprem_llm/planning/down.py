"""down: one deployment taken away; weights and images stay unless they are purged and nobody else uses them."""

from collections.abc import Mapping

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.json_values import is_list
from onprem_llm.planning.addresses import check_ports
from onprem_llm.planning.revisions import weights_of
from onprem_llm.planning.steps import ui_step
from onprem_llm.planning.types import UI_PROJECT, Change, Plan, Step, Wanted
from onprem_llm.planning.web_ui import ADMIN_KEY, SESSION_KEY, PlannedUi, find_engines, plan_ui
from onprem_llm.spec.site import Site


def plan_down(site: Site, wanted: Wanted, current: Current, gateway: HostState, name: str) -> Plan:
    """Plan the removal; InvalidError if nothing of that name is known, UnreachableError if its host is silent."""
    entry = current.book.get(name)
    standing = _standing(name, current)
    engines = find_engines(wanted, current, {})
    ui = plan_ui(site, wanted, current, gateway, engines)
    if ui and ui.outcome:
        check_ports(gateway, [ui.claim], set(standing[gateway.name]))
    changes = [
        Change(host, project, "remove", ("down",)) for host, projects in standing.items() for project in projects
    ]
    if ui and ui.change:
        changes.append(ui.change)
    orders = _orders(site, wanted, current, gateway, name, standing, ui)
    changes += _leavings(orders)
    record = {"deployment": name, "removed": True, "event": {"action": "down", "deployment": name}}
    steps = (
        ui_step(site, ui, gateway),
        Step("remove", f"Remove {name}", orders) if orders else None,
        Step("record", "Write the book", {gateway.name: record}) if entry else None,
    )
    files = {gateway.name: {UI_PROJECT: dict(ui.outcome.rendered.files)}} if ui and ui.outcome else {}
    return Plan(
        based_on=current.digest(),
        gateway=gateway.name,
        deployment=name,
        verb="down",
        revision=entry.revision if entry else 0,
        model_yaml=entry.model_yaml if entry else "",
        steps=tuple(step for step in steps if step is not None),
        files=files,
        changes=tuple(changes),
        warnings=(*engines.warnings, *(ui.warnings if ui else ())),
        secrets={UI_PROJECT: wanted.ui_env_references} if ui and ui.outcome and wanted.ui_env_references else {},
    )


def _standing(name: str, current: Current) -> dict[str, list[str]]:
    """Return host -> the deployment's projects there; an error if there can be none, or if they may be out of sight."""
    standing = {host.name: _projects_of(host, name) for host in current.hosts}
    found = any(standing.values())
    if name not in current.book and not found:
        known = ", ".join(sorted(current.book)) or "none"
        raise InvalidError(f"there is no deployment named {name}", hint=f"the book has: {known}")
    if not found and current.unreachable:
        raise UnreachableError(
            f"{name} may run on a host that did not answer: {', '.join(current.unreachable)}",
            hint="bring the host back and run this again, so that nothing is left running there",
        )
    return standing


def _projects_of(host: HostState, name: str) -> list[str]:
    """Return the deployment's projects: by their label, and by their name where no container is left to carry one."""
    return [
        project.name
        for project in host.projects.values()
        if project.label("deployment") == name
        or (not project.containers and project.name.rpartition("-")[0] == name and project.name[-1].isdigit())
    ]


def _orders(
    site: Site,
    wanted: Wanted,
    current: Current,
    gateway: HostState,
    name: str,
    standing: dict[str, list[str]],
    ui: PlannedUi | None,
) -> dict[str, dict[str, object]]:
    weights, images = _purged(wanted, current, name) if wanted.purge else (None, ())
    orders = {}
    for host in current.hosts:
        projects = list(standing[host.name])
        keys = [name] if name in host.keys else []
        if ui and ui.removed and host.name == gateway.name:
            projects.append(UI_PROJECT)
            # The page's accounts stay with its data, and its password with them.
            keys += [key for key in (SESSION_KEY, ADMIN_KEY) if wanted.purge and key in host.keys]
        order = {
            "projects": [{"name": p, "path": site.project_path(p), "purge": wanted.purge} for p in projects],
            "weights": [host.weights[weights].path] if weights and weights in host.weights else [],
            "images": [i.id for i in host.images if i.id in images or set(i.digests) & set(images)],
            "keys": keys,
        }
        if any(order.values()):
            orders[host.name] = order
    return orders


def _leavings(orders: Mapping[str, Mapping[str, object]]) -> list[Change]:
    """Say what goes beside the projects."""
    found = []
    for host, order in orders.items():
        for kind, subject in (("keys", "key"), ("weights", "weights"), ("images", "image")):
            items = order[kind]
            names = [str(item) for item in items] if is_list(items) else []
            found += [Change(host, f"{subject} {_short(item)}", "remove", ("down",)) for item in names]
    return found


def _short(item: str) -> str:
    name = item.rpartition("/")[2]
    return name[:19] if name.startswith("sha256:") else name


def _purged(wanted: Wanted, current: Current, name: str) -> tuple[str | None, tuple[str, ...]]:
    entry = current.book.get(name)
    others = [current.book[item.deployment.name] for item in wanted.deployments if item.deployment.name in current.book]
    if entry is None:
        return None, ()
    weights = weights_of(entry.model_yaml)
    if weights in {weights_of(other.model_yaml) for other in others}:
        weights = None
    kept = {image for other in others for image in other.images.values()}
    return weights, tuple(image for image in entry.images.values() if image not in kept)
