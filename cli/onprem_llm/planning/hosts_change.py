"""A host out of rotation and back, and hosts whose replicas go elsewhere: plans about a host, not a deployment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.book_state import HostMark
from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.about_hosts import host_plan
from onprem_llm.planning.backends import standing_backend
from onprem_llm.planning.certificates import tls_references
from onprem_llm.planning.clock_rest import counted_still, going_on, resting_while_drained, rests
from onprem_llm.planning.gateway import PROJECT, PlannedGateway, gateway_step, plan_gateways
from onprem_llm.planning.host_checks import leftovers, refuse_worker, require_host
from onprem_llm.planning.ray_hosts import WORKER_GROUP
from onprem_llm.planning.rotation import back_step, drain_timeout, is_held_out, route_step
from onprem_llm.planning.staging import HostWork, check_space, image_for
from onprem_llm.planning.standing import standing_of
from onprem_llm.planning.steps import stage_step
from onprem_llm.planning.types import UI_PROJECT, Change, Order, Plan, Step, Wanted
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.spec.site import Site


def marked(current: Current, host: str, state: str | None) -> Current:
    """Return the hosts as they are once the book says this of one of them; None: nothing is said of it any more."""
    gateway = current.gateway
    if gateway is None or gateway.book is None:
        return current
    marks = {name: mark for name, mark in gateway.book.hosts.items() if name != host}
    if state is not None:
        known = current.marks.get(host)
        drained = state == "drained" or (known is not None and known.was_drained)
        marks[host] = HostMark(state, None, None, drained)
    told = replace(gateway, book=replace(gateway.book, hosts=marks))
    return replace(current, hosts=tuple(told if one is gateway else one for one in current.hosts))


def recorded_on(current: Current, host: str) -> dict[str, list[str]]:
    """Return deployment -> its replicas that the book has on a host."""
    found = {
        name: sorted(project for project, at in entry.replicas.items() if host in at.hosts)
        for name, entry in current.book.items()
    }
    return {name: projects for name, projects in found.items() if projects}


def plan_drain(site: Site, wanted: Wanted, current: Current, gateway: HostState, name: str, purpose: str = "") -> Plan:
    """Plan to take a host out of rotation: its requests end, the gateways leave its replicas out, the book says so.

    `purpose`: what a command does it for; a person who drains such a host keeps it out of that command's hands.
    """
    require_host(current, name)
    known = current.marks.get(name)
    if known is not None and known.state != "drained":
        raise InvalidError(f"{name} is {known.state}: it gets no requests", hint=f"onprem-llm host undrain {name}")
    if known is not None:
        return _taken_over(site, current, gateway, name, known, purpose)
    if not purpose:
        refuse_worker(current, name)
    servers = _servers(current, name)
    there = recorded_on(current, name)
    wait = max((drain_timeout(one, current.book[one]) for one in there), default=0)
    # What does not serve now has nothing to be drained, and must not come in once it does.
    after = _routes(site, wanted, marked(current, name, "drained")) if there else ()
    before = _routes(site, wanted, current, f"{PROJECT}.before") if there else ()
    back = back_step(current.gateways, f"Put {name} back", servers)
    drain = route_step(current.gateways, f"Drain {name}", drain=servers, wait=wait)
    names = list(current.book)
    rest, until_undrained = resting_while_drained(current, name)
    steps = [
        rest,
        replace(drain, undo=(back,)) if drain and back else None,
        _told(site, after, before, names, gateway, f"Leave {name} out at the gateway") if there else None,
        mark_step(gateway, {name: "drained"}, "host drain", name, purpose),
        until_undrained,
    ]
    changes = [Change(name, server, "update", ("leaves rotation",)) for server in servers]
    warnings = [
        f"{deployment} is left without any replica in rotation: its requests are answered with 503"
        for deployment in _without_any(current, name)
    ]
    warnings += counted_still(current, name, there)
    host = current.host(name)
    if host is not None and HEAD_PROJECT in host.projects:
        warnings.append(f"{name} has the head of the Ray cluster, which goes on, and with it what it serves")
    files = _files(after, before)
    changes = changes or [Change(name, "host", "update", ("nothing new goes there",))]
    return _plan(site, current, gateway, name, steps, changes, files=files, warnings=warnings)


def _taken_over(site: Site, current: Current, gateway: HostState, name: str, known: HostMark, purpose: str) -> Plan:
    """A drain that was cut off after it was in the book has left the clock to be seen to."""
    _, rest = resting_while_drained(current, name)
    changes = [Change(name, "schedule", "update", ("rests while the host is drained",))] if rest else []
    if purpose or not known.purpose:
        return _plan(site, current, gateway, name, [rest], changes)
    changes.append(Change(name, "host", "update", (f"is {known.words}, and stays drained after that",)))
    steps = [mark_step(gateway, {name: "drained"}, "host drain", name), rest]
    return _plan(site, current, gateway, name, steps, changes)


def plan_undrain(site: Site, wanted: Wanted, current: Current, gateway: HostState, name: str) -> Plan:
    """Plan to take away what was said of a host: its replicas come back into rotation, new ones may go there."""
    require_host(current, name)
    mark = current.marks.get(name)
    if mark is None and not is_held_out_on(current, name) and rests(current, name) is None:
        return _plan(site, current, gateway, name, (), ())
    if leftovers(current, name):
        raise InvalidError(
            f"{name} still has what it was given as the gateway host, which is {gateway.name} now",
            hint=f"take it away first: onprem-llm host remove {name}",
        )
    free = marked(current, name, None)
    servers, there = _servers(free, name), recorded_on(current, name)
    # The gateway is told of those that are not up yet too: its check lets them in once they answer.
    after = _routes(site, wanted, free) if there else ()
    before = _routes(site, wanted, current, f"{PROJECT}.before") if there else ()
    steps = [
        _told(site, after, before, list(current.book), gateway, f"Let {name} in at the gateway") if there else None,
        route_step(current.gateways, f"Return {name}", ready=servers),
        going_on(current, name),  # before the book: what rests on a host that is not drained would do so for ever
        mark_step(gateway, {name: ""}, "host undrain", name),
    ]
    changes = [Change(name, server, "update", ("comes back into rotation",)) for server in servers]
    files = _files(after, before)
    later = [f"{one}/{project}" for one, projects in there.items() for project in projects]
    warnings = [
        f"{server} on {name} is not up: it gets requests once it answers (onprem-llm status; if it stays so: deploy)"
        for server in later
        if server not in servers
    ]
    host = current.host(name)
    if host is not None and WORKER_GROUP in host.groups and not {HEAD_PROJECT, WORKER_PROJECT} & set(host.projects):
        warnings.append(f"{name} is to be a worker of the Ray cluster: onprem-llm cluster add {name}")
    changes = changes or [_mark_change(name, mark)]
    return _plan(site, current, gateway, name, steps, changes, files=files, warnings=warnings)


def plan_mark(site: Site, current: Current, gateway: HostState, name: str, state: str, action: str, text: str) -> Plan:
    """Plan to write down what is said of a host, and nothing else."""
    known = current.marks.get(name)
    if known is not None and known.state == state:
        return _plan(site, current, gateway, name, (), ())
    return _plan(site, current, gateway, name, [mark_step(gateway, {name: state}, action, text)], ())


def plan_page_image(site: Site, wanted: Wanted, current: Current, gateway: HostState, name: str) -> Plan:
    """Plan to bring the page's image to a host that will be the gateway, so that the page is not away for that long."""
    require_host(current, name)
    host = current.host(name)
    if UI_PROJECT not in gateway.projects or wanted.ui_image is None or host is None:
        return _plan(site, current, gateway, name, (), ())
    image = image_for(host, wanted.ui_image, None)
    check_space(host, weights=0, images=image.bytes)
    work = {name: HostWork(host, images=[image])} if image.order is not None else {}
    return _plan(site, current, gateway, name, [stage_step(site, work, gateway)], ())


def mark_step(gateway: HostState, marks: Mapping[str, str], action: str, text: str, purpose: str = "") -> Step:
    """Return the step that writes what is said of hosts into the book; `purpose`: what a command says it for."""
    order: Order = {"marks": dict(marks), "event": {"action": action, "message": text}}
    if purpose:
        order = {**order, "purpose": purpose}
    return Step("marks", "Write the book", {gateway.name: order})


@dataclass(frozen=True, slots=True)
class Resettled:
    """What becomes of one deployment when a host goes: how many replicas it had and has, and its plan.

    Without a plan it stays as it is, and `why` says what keeps it.
    """

    deployment: str
    before: int
    after: int
    plan: Plan | None
    why: str | None = None


def leaving_text(found: Sequence[Resettled]) -> list[str]:
    """Say which deployments end with fewer replicas."""
    lines = []
    for one in found:
        if one.plan is None:
            lines.append(f"{one.deployment} finds no room at all and has no replica until there is: {one.why}")
        elif one.after < one.before:
            lines.append(f"{one.deployment} ends with {one.after} of {one.before} replicas: {one.why}")
    return lines


def _servers(current: Current, name: str) -> list[str]:
    """Return the replicas on a host that answer: those that can be drained, and waited for."""
    found = []
    for deployment, projects in recorded_on(current, name).items():
        # A replica over several hosts answers on one of them, and is away with any.
        serving = {s.project for s in standing_of(deployment, current) if s.serving and s.belongs and not s.rank}
        found += [f"{deployment}/{project}" for project in projects if project in serving]
    return found


def is_held_out_on(current: Current, name: str) -> bool:
    """Tell whether a gateway keeps requests from a replica on a host: a drain that was cut off says nothing more."""
    servers = [f"{one}/{project}" for one, projects in recorded_on(current, name).items() for project in projects]
    return any(is_held_out(server, current) for server in servers)


def _without_any(current: Current, name: str) -> list[str]:
    found = []
    for deployment, projects in recorded_on(current, name).items():
        others = [s for s in standing_of(deployment, current) if s.routed and s.project not in projects]
        if projects and not others:
            found.append(deployment)
    return found


def _routes(site: Site, wanted: Wanted, current: Current, variant: str = PROJECT) -> tuple[PlannedGateway, ...]:
    backends = [standing_backend(site, item.deployment, current) for item in wanted.deployments]
    return plan_gateways(site, wanted, current, backends, variant)


def _told(
    site: Site,
    after: Sequence[PlannedGateway],
    before: Sequence[PlannedGateway],
    names: Sequence[str],
    gateway: HostState,
    title: str,
) -> Step:
    undo = gateway_step(site, before, names, gateway, "Let the gateway route as before")
    step = gateway_step(site, after, names, gateway, title)
    return replace(step, undo=(undo,))


def _files(*routes: Sequence[PlannedGateway]) -> dict[str, dict[str, dict[str, str]]]:
    files: dict[str, dict[str, dict[str, str]]] = {}
    for one in (gateway for moment in routes for gateway in moment):
        files.setdefault(one.host.name, {})[one.variant] = dict(one.outcome.rendered.files)
    return files


def _mark_change(name: str, mark: HostMark | None) -> Change:
    if mark is None:
        return Change(name, "host", "update", ("is let in again: it was being drained",))
    return Change(name, "host", "update", (f"is not {mark.state} any more",))


def _plan(
    site: Site,
    current: Current,
    gateway: HostState,
    name: str,
    steps: Sequence[Step | None],
    changes: Sequence[Change],
    *,
    files: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None,
    warnings: Sequence[str] = (),
) -> Plan:
    secrets = tls_references(site) if files else {}
    return host_plan("host", name, current, gateway, steps, changes, files=files, warnings=warnings, secrets=secrets)
