"""down: one deployment taken away; weights and images stay unless they are purged and nobody else uses them."""

from collections.abc import Mapping

from onprem_llm.book_state import BookEntry
from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.json_values import is_list
from onprem_llm.planning.addresses import check_ports
from onprem_llm.planning.certificates import tls_references
from onprem_llm.planning.gateway import PROJECT, gateway_step
from onprem_llm.planning.guards import firewall_without
from onprem_llm.planning.image_chain import served, stray_text
from onprem_llm.planning.local_registries import carries_others
from onprem_llm.planning.out_of_sight import awaited, unseen_because
from onprem_llm.planning.placement import is_lost
from onprem_llm.planning.places import place
from onprem_llm.planning.ray_at_address import token_references
from onprem_llm.planning.ray_book import PROJECT as RAY_SERVE
from onprem_llm.planning.ray_book import on_ray
from onprem_llm.planning.ray_down import is_stray, plan_serve_without
from onprem_llm.planning.ray_hosts import standing_head
from onprem_llm.planning.ray_nodes import KEY as RAY_KEY
from onprem_llm.planning.ray_routes import known_nodes
from onprem_llm.planning.removal import removal
from onprem_llm.planning.revisions import weights_of
from onprem_llm.planning.rotation import drain_timeout, route_step
from onprem_llm.planning.routes import routes_without
from onprem_llm.planning.schedules import without_schedule
from onprem_llm.planning.shared_address import PROJECT as SHARED_ADDRESS
from onprem_llm.planning.standing import projects_of, standing_of
from onprem_llm.planning.steps import ui_step
from onprem_llm.planning.types import UI_PROJECT, Change, Plan, Step, Wanted
from onprem_llm.planning.web_ui import ADMIN_KEY, SESSION_KEY, PlannedUi, plan_ui
from onprem_llm.rendering.registry import PROJECT as REGISTRY
from onprem_llm.spec.site import Site


def plan_down(site: Site, wanted: Wanted, current: Current, gateway: HostState, name: str) -> Plan:
    """Plan the removal; InvalidError if nothing of that name is known, UnreachableError if its host is silent."""
    entry = current.book.get(name)
    standing = _standing(name, current)
    ui = plan_ui(site, wanted, gateway)
    if ui and ui.outcome:
        check_ports(gateway, [ui.claim], set(standing[gateway.name]))
    last = not wanted.deployments
    routes = () if last or not _gateway_stands(current) else routes_without(site, wanted, current)
    changes = [
        Change(host, project, "remove", ("down",)) for host, projects in standing.items() for project in projects
    ]
    changes += [Change(host.name, "schedule", "remove", ("down",)) for host in current.hosts if name in host.schedules]
    changes += [one.outcome.change for one in routes]
    if ui and ui.change:
        changes.append(ui.change)
    orders = _orders(site, wanted, current, gateway, name, standing, ui)
    if last:
        changes += _without_gateway(site, current, orders, purge=wanted.purge)
    else:
        changes += _without_registries(site, current, orders, name)
    gone = plan_serve_without(site, current, name)
    on_cluster = on_ray(current)
    others = site.ray.address is not None or not (standing_head(current) or awaited(current))
    if (gone or name in on_cluster) and others and RAY_KEY in gateway.keys and not set(on_cluster) - {name}:
        # The token of a cluster that somebody else runs is there for its deployments alone.
        order = orders.setdefault(gateway.name, dict(removal(site, [])))
        order["keys"] = [*_listed(order["keys"]), RAY_KEY]
    changes += _leavings(orders)
    record = {"deployment": name, "removed": True, "event": {"action": "down", "deployment": name}}
    left = [item.deployment.name for item in wanted.deployments]
    changes += gone.changes if gone else ()
    steps = (
        without_schedule(name, current),
        _drain(name, entry, current),
        gateway_step(site, routes, left, gateway, "Tell the gateway") if routes else None,
        ui_step(site, ui, gateway),
        gone.step if gone else None,
        Step("remove", f"Remove {name}", orders) if orders else None,
        Step("record", "Write the book", {gateway.name: record}) if entry else None,
    )
    files: dict[str, dict[str, dict[str, str]]] = {}
    for one in routes:
        files.setdefault(one.host.name, {})[one.variant] = dict(one.outcome.rendered.files)
    if gone:
        files.setdefault(gone.host.name, {}).update(gone.files)
    secrets = tls_references(site) if routes else {}
    secrets |= token_references(site, RAY_SERVE) if gone else {}
    if ui and ui.outcome:
        files.setdefault(gateway.name, {})[UI_PROJECT] = dict(ui.outcome.rendered.files)
        if wanted.ui_env_references:
            secrets[UI_PROJECT] = {env: dict(reference) for env, reference in wanted.ui_env_references.items()}
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
        warnings=(*_left_running(entry, current), *_left_on_ray(name, current, told=gone is not None)),
        secrets=secrets,
    )


def _left_running(entry: BookEntry | None, current: Current) -> tuple[str, ...]:
    places = [(project, host) for project, at in entry.replicas.items() for host in at.hosts] if entry else []
    return tuple(
        f"{project} is left running on {host}, which {unseen_because(current, host)}: no requests reach it; "
        f"run this again {'without --limit' if host in current.left_out else 'once the host is back'}"
        for project, host in places
        if host in current.unreachable and not is_lost(current, host)
    )


def _left_on_ray(name: str, current: Current, *, told: bool) -> tuple[str, ...]:
    if told or name not in on_ray(current):
        return ()
    return (
        f"no Ray cluster is told that {name} goes: none stands here, and onprem_llm_site.ray.address names none. Where "
        f"it was at such an address, {name} goes on there until somebody takes it away",
    )


def _gateway_stands(current: Current) -> bool:
    return any(PROJECT in host.projects for host in current.gateways)


def _drain(name: str, entry: BookEntry | None, current: Current) -> Step | None:
    """Let streams that go on end first; a replica that does not serve has none."""
    servers = [f"{name}/{s.project}" for s in standing_of(name, current) if s.serving and not s.rank]
    servers += known_nodes(name, current) if name in on_ray(current) else []
    return route_step(current.gateways, f"Drain {name}", drain=servers, wait=drain_timeout(name, entry))


def _without_gateway(
    site: Site, current: Current, orders: dict[str, dict[str, object]], *, purge: bool
) -> list[Change]:
    """The gateway goes with the last deployment, its shared address first: it has nothing left to answer with.

    So does the site's registry; its images stay while the setting does, as the next deploy sends what is lacking. What
    hosts have passed on to each other does not: docker has it.
    """
    changes = _without_strays(site, current, orders, purge=purge)
    for host in current.hosts:
        for name in (SHARED_ADDRESS, PROJECT, REGISTRY):
            if name not in host.projects or (name == PROJECT and host not in current.gateways):
                continue
            purged = name == REGISTRY and (purge or site.registry_dir is None or served(host) is not None)
            changes.append(_removed(site, orders, host, name, "no deployment is left", purge=purged))
    return changes


def _without_registries(site: Site, current: Current, orders: dict[str, dict[str, object]], name: str) -> list[Change]:
    """A host's own registry goes with the last replica there."""
    idle = [host for host in current.hosts if served(host) is not None and not carries_others(host, current, name)]
    return [
        _removed(site, orders, host, REGISTRY, "no replica is left on this host", purge=True)
        for host in idle
        if host is not current.gateway
    ] + _without_strays(site, current, orders, purge=False)


def _without_strays(site: Site, current: Current, orders: dict[str, dict[str, object]], *, purge: bool) -> list[Change]:
    """So does what a first chain has left that was cut off. The gateway host's comes from here, and is gone on with."""
    return [
        _removed(site, orders, host, REGISTRY, stray_text(host), purge=True)
        for host in current.hosts
        if host.strays
        and REGISTRY not in host.projects
        and (purge or site.registry_dir is None or host is not current.gateway)
    ]


def _removed(
    site: Site, orders: dict[str, dict[str, object]], host: HostState, project: str, why: str, *, purge: bool
) -> Change:
    order = orders.setdefault(host.name, dict(removal(site, [])))
    more = removal(site, [project], purge=purge)["projects"]
    order["projects"] = [*_listed(order["projects"]), *_listed(more)]
    return Change(host.name, project, "remove", (why,))


def _standing(name: str, current: Current) -> dict[str, list[str]]:
    """Return host -> the deployment's projects there; an error if there can be none, or if they may be out of sight."""
    standing = {host.name: projects_of(host, name) for host in current.hosts}
    # A host that was silent when it was taken down may have nothing but its timer, which starts nothing, for ever.
    found = any(standing.values()) or any(name in host.schedules for host in current.hosts)
    found = found or is_stray(current, name)
    if name not in current.book and not found:
        known = ", ".join(sorted(current.book)) or "none"
        raise InvalidError(f"there is no deployment named {name}", hint=f"the book has: {known}")
    if not found and current.unreachable and name not in on_ray(current):
        if current.left_out:
            raise InvalidError(f"--limit leaves out where {name} runs", hint="leave --limit out")
        raise UnreachableError(
            f"{name} may run on a host that did not answer: {', '.join(current.unreachable)}",
            hint="bring the host back and run this again, so that nothing is left running there",
        )
    return standing


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
    places = set(map(place, images))
    orders: dict[str, dict[str, object]] = {}
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
            # A host may know an image under the address of a registry of its own.
            "images": [i.id for i in host.images if places & {i.id, *map(place, i.digests)}],
            "keys": keys,
            **firewall_without(host, current, standing[host.name]),
        }
        if any(order.values()):
            orders[host.name] = order
    return orders


def _leavings(orders: Mapping[str, Mapping[str, object]]) -> list[Change]:
    """Say what goes beside the projects."""
    found = []
    for host, order in orders.items():
        for kind, subject in (("keys", "key"), ("weights", "weights"), ("images", "image")):
            names = [str(item) for item in _listed(order[kind])]
            found += [Change(host, f"{subject} {_short(item)}", "remove", ("down",)) for item in names]
    return found


def _listed(value: object) -> list[object]:
    return list(value) if is_list(value) else []


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
    kept = {place(image) for other in others for image in other.images.values()}
    if name in on_ray(current):  # the cluster's nodes run from it
        return weights, ()
    return weights, tuple(image for image in entry.images.values() if place(image) not in kept)
