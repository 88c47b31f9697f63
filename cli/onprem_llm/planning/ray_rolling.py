"""How nodes that stand are changed: workers one after another, each emptied first, or all of them together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.ray_hosts import RayHosts
from onprem_llm.planning.ray_nodes import PlannedNode
from onprem_llm.planning.ray_steps import ask_order, drain_step, runs
from onprem_llm.planning.removal import removal
from onprem_llm.planning.rotation import back_step, drain_timeout, route_step
from onprem_llm.planning.types import Step
from onprem_llm.rendering.ray_node import HEAD_PROJECT, START_SECONDS, TOKEN, WORKER_PROJECT
from onprem_llm.serve_state import RUNNING
from onprem_llm.spec.site import Site

CHANGED = frozenset({"update", "restart"})


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the hosts.

    `rays`: versions of Ray in the image of the head that stands, and in the one that takes its place; None where both
    are one image. `timeout`: seconds that replicas may take to start elsewhere.
    """

    rays: tuple[str, str] | None = None
    timeout: int = 900

    @property
    def other_ray(self) -> bool:
        """Tell whether the new image has another Ray."""
        return self.rays is not None and self.rays[0] != self.rays[1]


@dataclass(frozen=True, slots=True)
class Rolled:
    """How the nodes change. `ends`: why what they serve ends meanwhile; None where it does not."""

    steps: tuple[Step | None, ...]
    ends: str | None = None
    forgets: bool = False  # Ray Serve has no applications afterwards
    warnings: tuple[str, ...] = ()


def changed(
    site: Site,
    current: Current,
    hosts: RayHosts,
    head: PlannedNode,
    workers: Sequence[PlannedNode],
    keeper: HostState,
    known: Known,
) -> Rolled:
    """Return the steps: the head and who learns of others, then workers that do not run, then those that do.

    `keeper`: the host whose token counts.
    """
    why = why_together(head, known)
    # What serves now has to serve again before the next node is touched.
    wait = partial(_wait, site, hosts, known.timeout, () if why else running(head.host))
    rolling = [] if why or not runs(head.host) else [one for one in workers if _serves(one) and _changes(one)]
    told = [one for one in workers if one.needed and not one.outcome.needed]
    first = {one.host.name: one.order(site, keeper) for one in [head, *told] if one.needed}
    starting = [one for one in workers if one.outcome.needed and one not in rolling]
    second = {one.host.name: one.order(site, keeper) for one in starting}
    # Workers that lose their head end themselves, and join the new one.
    there = [one for one in workers if head.outcome.needed and one not in starting]
    out, back = (None, None) if why or not there else _around(site, current, head)
    steps = [
        out,
        *(_emptied(site, head, workers) if known.other_ray else ()),
        Step("apply", "Start the head of the Ray cluster", first) if first else None,
        wait(there, "Wait for the head to know its workers") if there and (rolling or back) else None,
        back,
        Step("apply", "Start the workers of the Ray cluster", second) if second else None,
        wait([*there, *starting], "Wait for the workers") if starting or (there and not (rolling or back)) else None,
    ]
    warnings = []
    for one in rolling:
        alone = not [other for other in [head, *workers] if other is not one and other.node.carries]
        drain = None if alone else drain_step(site, hosts.head, one.host, known.timeout)
        start = Step("apply", f"Start {one.host.name} anew", {one.host.name: one.order(site, keeper)})
        steps += [drain, start, wait([one], f"Wait for {one.host.name}")]
        if alone:
            warnings.append(f"{one.host.name} alone carries replicas: what it serves ends until it is back")
    if head.node.carries and _changes(head) and runs(head.host) and not why:
        warnings.append(f"{head.host.name} is the head and starts anew: so do replicas that it carries")
    return Rolled(tuple(steps), why, why is not None and (known.other_ray or not _keeps(head)), tuple(warnings))


def _around(site: Site, current: Current, head: PlannedNode) -> tuple[Step | None, Step | None]:
    """Return the steps that take the head's proxy of Ray Serve's out of the gateways' rotation, and back.

    It ends with the head, without a word to whom it answers; a worker's ends when nobody asks it any more.
    """
    states = [host.gateway_state for host in current.gateways if host.gateway_state is not None]
    all_of_them = {name: server for state in states for name, server in state.servers.items()}
    known = {name: server for name, server in all_of_them.items() if server.port == site.ray.serve_port}
    project = head.host.projects[HEAD_PROJECT]
    address = project.label("address") or head.host.cluster_address
    mine = sorted(name for name, server in known.items() if server.address == address and server.admin == "ready")
    others = {name.partition("/")[0] for name, server in known.items() if server.up and server.address != address}
    mine = [name for name in mine if name.partition("/")[0] in others]
    seconds = max((drain_timeout(name, current.book.get(name)) for name in others), default=0)
    out = route_step(current.gateways, "Take the head's proxy out of rotation", drain=mine, wait=seconds)
    undo = back_step(current.gateways, "Let the head's proxy in again", mine)
    back = route_step(current.gateways, "Let the head's proxy in again", ready=mine)
    return (replace(out, undo=(undo,)), back) if out and undo else (None, None)


def why_together(head: PlannedNode, known: Known) -> str | None:
    """Say why all nodes are started anew at once, None where they need not be, or where no head runs."""
    project = head.host.projects.get(HEAD_PROJECT)
    if project is None or not runs(head.host):
        return None
    node = head.node
    if known.rays is not None and known.other_ray:
        return f"Ray {known.rays[0]} -> {known.rays[1]}, and one cluster cannot have nodes of two Rays"
    if project.label("head") not in {None, node.gcs} or project.label("ports") not in {None, node.range}:
        return "the head's address or Ray's ports change"
    if any(reason.startswith(TOKEN) for reason in head.outcome.change.reasons):
        return "the cluster's token changes"
    if _changes(head) and not _keeps(head):
        return "the head is started anew, and has what it knows in memory"
    return None


def _keeps(head: PlannedNode) -> bool:
    project = head.host.projects.get(HEAD_PROJECT)
    return head.node.keeps and project is not None and project.label("store") == "rocksdb"


def _changes(one: PlannedNode) -> bool:
    return one.outcome.change.action in CHANGED


def _serves(one: PlannedNode) -> bool:
    """Tell whether a worker may have replicas that can be moved: one that hangs cannot be emptied."""
    project = one.host.projects.get(WORKER_PROJECT)
    return project is not None and any(c.state == "running" and c.health != "unhealthy" for c in project.containers)


def _emptied(site: Site, head: PlannedNode, workers: Sequence[PlannedNode]) -> list[Step | None]:
    """Return the steps that stop all nodes: what one Ray has stored is not for another to read."""
    standing = {
        one.host.name: removal(site, [WORKER_PROJECT]) for one in workers if WORKER_PROJECT in one.host.projects
    }
    store = {head.host.name: removal(site, [HEAD_PROJECT], purge=True)}
    return [
        Step("remove", "Stop the workers", standing) if standing else None,
        Step("remove", "Stop the head, and have it forget", store),
    ]


def running(head: HostState) -> tuple[str, ...]:
    """Return the applications of Ray Serve's that run."""
    found = head.serve.applications if head.serve else {}
    return tuple(sorted(name for name, app in found.items() if app.status == RUNNING))


def _wait(
    site: Site, hosts: RayHosts, timeout: int, applications: Sequence[str], nodes: Sequence[PlannedNode], title: str
) -> Step:
    addresses = [one.node.address for one in nodes]
    order = ask_order(site, hosts.head, addresses, timeout if applications else START_SECONDS, applications)
    return Step("ray_nodes", title, {hosts.head.name: order})
