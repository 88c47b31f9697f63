"""Nodes that leave the Ray cluster: a worker that is drained, or all of them."""

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.about_hosts import host_plan
from onprem_llm.planning.host_checks import require_host
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.planning.ray_hosts import PROJECTS, WORKER_GROUP, standing_head
from onprem_llm.planning.ray_nodes import KEY
from onprem_llm.planning.ray_steps import NAME, drain_step, gone, runs
from onprem_llm.planning.removal import removal
from onprem_llm.planning.types import Change, Plan, Step
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.spec.site import Site


def plan_drain(site: Site, current: Current, gateway: HostState, name: str, timeout: int) -> Plan:
    """Plan to take a worker out: its replicas go elsewhere first, then its node and what guards it. InvalidError for
    the head, and for a host without a node.
    """
    require_host(current, name)
    host, head, silent = current.host(name), standing_head(current), awaited(current)
    if head is None and silent:
        raise UnreachableError(
            f"the cluster's head drains {name}, and no host that answered has it; these did not: {', '.join(silent)}",
            hint="bring them back and run this again, so that its replicas start elsewhere first",
        )
    if host is None or WORKER_PROJECT not in host.projects:
        if host is not None and HEAD_PROJECT in host.projects:
            raise InvalidError(
                f"{name} has the cluster's head, which cannot be drained",
                hint="onprem-llm cluster down takes the whole cluster down",
            )
        return host_plan("cluster", NAME, current, gateway, ())
    drain = drain_step(site, head, host, timeout) if head is not None and runs(head) and runs(host) else None
    order = gone(site, [WORKER_PROJECT], keeps_token=host in current.gateways)
    steps = [drain, Step("remove", f"Take {name} out of the Ray cluster", {name: order})]
    others = [one for one in current.hosts if WORKER_PROJECT in one.projects and one is not host]
    warnings = [] if others else [f"{name} is the cluster's last worker: its replicas have nowhere to go"]
    if WORKER_GROUP in host.groups:
        warnings.append(f"{name} is in the inventory's group {WORKER_GROUP}: the next `cluster up` brings it back")
    why = "its replicas go elsewhere first" if drain else "nothing runs there that a head could drain"
    changes = [Change(name, WORKER_PROJECT, "remove", (why,))]
    return host_plan("cluster", NAME, current, gateway, steps, changes, warnings=warnings)


def plan_down(site: Site, current: Current, gateway: HostState) -> Plan:
    """Plan to take every node away: the workers first. What runs on them ends."""
    nodes = [(host, [p for p in PROJECTS if p in host.projects]) for host in current.hosts]
    workers = {host.name: gone(site, found) for host, found in nodes if found == [WORKER_PROJECT]}
    heads = {host.name: gone(site, found) for host, found in nodes if HEAD_PROJECT in found}
    for keeper in current.gateways:
        if keeper.name not in {**workers, **heads} and KEY in keeper.keys:
            heads[keeper.name] = {**removal(site, []), "keys": [KEY]}
    steps = [
        Step("remove", "Take the workers down", workers) if workers else None,
        Step("remove", "Take the head down", heads) if heads else None,
    ]
    changes = [
        Change(host.name, project, "remove", ("the cluster is taken down",)) for host, p in nodes for project in p
    ]
    return host_plan("cluster", NAME, current, gateway, steps, changes)
