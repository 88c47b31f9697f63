"""The site's Ray cluster: brought up as the inventory's groups say, a worker drained, all taken down."""

from collections.abc import Sequence

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.difference import Outcome
from onprem_llm.planning.host_checks import require_host
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.planning.ray_hosts import (
    PROJECTS,
    WORKER_GROUP,
    RayHosts,
    check_places,
    check_ray_ports,
    ray_hosts,
    require_prepared,
    standing_head,
    strays,
)
from onprem_llm.planning.ray_nodes import KEY, PlannedNode, plan_node
from onprem_llm.planning.removal import removal
from onprem_llm.planning.staging import HostWork, check_space
from onprem_llm.planning.steps import stage_step
from onprem_llm.planning.types import Change, ImageSource, Order, Plan, Step
from onprem_llm.rendering.ray_node import DASHBOARD, GCS, HEAD_PROJECT, SERVICE, START_SECONDS, WORKER_PROJECT
from onprem_llm.spec.site import Site

NAME = "Ray cluster"


def plan_up(site: Site, current: Current, gateway: HostState, image: ImageSource, only: str | None = None) -> Plan:
    """Plan the cluster as the inventory has it: the head, then the workers, each once the one before is ready.

    `only`: no other worker is started; those that stand learn of it. Nodes that the inventory does not have any more
    are left to `plan_drain` and `plan_down`, and named.
    """
    hosts = ray_hosts(current)
    if only is not None:
        require_host(current, only)
        if only not in [host.name for host in hosts.workers]:
            raise InvalidError(
                f"{only} is not in the inventory's group {WORKER_GROUP}",
                hint=f"write it into [{WORKER_GROUP}], then run this again",
            )
    require_prepared(hosts.all, current)
    check_places(current, hosts)
    check_ray_ports(site, hosts.all)
    head = plan_node(site, current, hosts, hosts.head, "head", image)
    standing = [w for w in hosts.workers if only in (None, w.name) or WORKER_PROJECT in w.projects]
    workers = [plan_node(site, current, hosts, host, "worker", image) for host in standing]
    nodes = [head, *workers]
    work = _staging(nodes)
    steps = [stage_step(site, work, gateway), _image_step(nodes), *_start_steps(site, hosts, nodes, gateway)]
    return _plan(
        current,
        gateway,
        steps,
        changes=[*_staged(work), *(one.outcome.change for one in nodes), *_guarded(nodes)],
        files=_files(nodes),
        send_bytes={name: part.bytes for name, part in work.items() if part.bytes},
        warnings=[
            *_head_warning(head),
            *(
                f"{host.name} runs {project}, and the inventory's groups of Ray do not have it: "
                + (f"onprem-llm cluster drain {host.name}" if project == WORKER_PROJECT else "onprem-llm cluster down")
                for host, project in strays(current, hosts)
            ),
        ],
    )


def _head_warning(head: PlannedNode) -> list[str]:
    kept = head.node.keeps and head.host.projects.get(HEAD_PROJECT)
    if head.outcome.change.action not in {"update", "restart"} or not _runs(head.host):
        return []
    if kept and kept.label("store") == "rocksdb":
        return []
    return ["the head is started anew: Ray forgets its applications, and what they serve ends"]


def _staging(nodes: Sequence[PlannedNode]) -> dict[str, HostWork]:
    work = {}
    for one in nodes:
        if one.image.order is not None:
            work[one.host.name] = HostWork(one.host, [one.image])
            check_space(one.host, weights=0, images=one.image.bytes)
    return work


def _staged(work: dict[str, HostWork]) -> list[Change]:
    return [
        Change(
            name, f"image {(image.order or {})['ref']}", "create" if image.bytes else "update", (image.reason or "",)
        )
        for name, part in work.items()
        for image in part.images
    ]


def _guarded(nodes: Sequence[PlannedNode]) -> list[Change]:
    return [
        Change(one.host.name, "firewall of Ray", "update", ("who reaches Ray there",)) for one in nodes if one.firewall
    ]


def _image_step(nodes: Sequence[PlannedNode]) -> Step | None:
    """Return the step that asks the images for their Ray, the head's too, before anything is started from them."""
    head = nodes[0]
    starting = [one for one in nodes if one.outcome.change.action in {"create", "update"}]
    if not starting:
        return None
    asked = [head, *(one for one in starting if one is not head)]
    orders = {one.host.name: {"image": one.node.image, "like": head.host.name} for one in asked}
    return Step("ray_image", "Look whether the images have the same Ray", orders)


def _start_steps(site: Site, hosts: RayHosts, nodes: Sequence[PlannedNode], gateway: HostState) -> list[Step | None]:
    """Return head, then workers, then the wait for those that were started. Who stands learns who may come first."""
    head, workers = nodes[0], nodes[1:]
    known = [one for one in workers if one.needed and not one.outcome.needed]
    first = {one.host.name: one.order(site, gateway) for one in [head, *known] if one.needed}
    second = {one.host.name: one.order(site, gateway) for one in workers if one.outcome.needed}
    # Workers that lose their head end themselves, and join the new one.
    awaited = [one.node.address for one in workers if one.outcome.needed or head.outcome.needed]
    return [
        Step("apply", "Start the head of the Ray cluster", first) if first else None,
        Step("apply", "Start the workers of the Ray cluster", second) if second else None,
        Step("ray_nodes", "Wait for the workers", {hosts.head.name: ask_order(site, hosts.head, awaited)})
        if awaited
        else None,
    ]


def ask_order(site: Site, head: HostState, nodes: Sequence[str], timeout: int = START_SECONDS) -> dict[str, object]:
    """Return an order of ray_nodes.yml or ray_drain.yml for the head's host; `nodes` are addresses."""
    return {
        "nodes": list(nodes),
        "address": f"{head.cluster_address}:{site.ray.ports.first + GCS}",
        "dashboard_port": site.ray.ports.first + DASHBOARD,
        "token": KEY,
        "timeout": timeout,
    }


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
        return _plan(current, gateway, ())
    steps = []
    drains = head is not None and _runs(head) and _runs(host)
    if head is not None and drains:
        container = f"{WORKER_PROJECT}-{SERVICE}-1"
        asked = ask_order(site, head, [host.cluster_address], timeout)
        # One that was not emptied goes on serving: it has to outlive its head, and a reboot of its host.
        back = Step("ray_drain", f"Have {name} come back after a restart", {name: {"stays": container}})
        steps.append(Step("ray_drain", f"Drain {name}", {name: {"leaves": container}, head.name: asked}, (back,)))
    steps.append(
        Step(
            "remove",
            f"Take {name} out of the Ray cluster",
            {name: _gone(site, [WORKER_PROJECT], keeps_token=host is gateway)},
        )
    )
    others = [one for one in current.hosts if WORKER_PROJECT in one.projects and one is not host]
    warnings = [] if others else [f"{name} is the cluster's last worker: its replicas have nowhere to go"]
    if WORKER_GROUP in host.groups:
        warnings.append(f"{name} is in the inventory's group {WORKER_GROUP}: the next `cluster up` brings it back")
    why = "its replicas go elsewhere first" if drains else "nothing runs there that a head could drain"
    changes = [Change(name, WORKER_PROJECT, "remove", (why,))]
    return _plan(current, gateway, steps, changes=changes, warnings=warnings)


def plan_down(site: Site, current: Current, gateway: HostState) -> Plan:
    """Plan to take every node away: the workers first. What runs on them ends."""
    nodes = [(host, [p for p in PROJECTS if p in host.projects]) for host in current.hosts]
    workers = {host.name: _gone(site, found) for host, found in nodes if found == [WORKER_PROJECT]}
    heads = {host.name: _gone(site, found) for host, found in nodes if HEAD_PROJECT in found}
    if gateway.name not in {**workers, **heads} and KEY in gateway.keys:
        heads[gateway.name] = {**removal(site, []), "keys": [KEY]}
    steps = [
        Step("remove", "Take the workers down", workers) if workers else None,
        Step("remove", "Take the head down", heads) if heads else None,
    ]
    changes = [
        Change(host.name, project, "remove", ("the cluster is taken down",)) for host, p in nodes for project in p
    ]
    return _plan(current, gateway, steps, changes=changes)


def _gone(site: Site, projects: Sequence[str], *, keeps_token: bool = False) -> Order:
    # The folder has nothing but what was rendered: Ray keeps its own files in the container.
    return {
        **removal(site, projects, purge=True),
        "keys": [] if keeps_token else [KEY],
        "ray_firewall": {"rules": [], "state": "absent"},
    }


def _runs(host: HostState) -> bool:
    return any(c.state == "running" for p in PROJECTS if p in host.projects for c in host.projects[p].containers)


def _files(nodes: Sequence[PlannedNode]) -> dict[str, dict[str, dict[str, str]]]:
    outcomes: list[tuple[str, Outcome]] = [(one.host.name, one.outcome) for one in nodes]
    return {name: {outcome.rendered.project: dict(outcome.rendered.files)} for name, outcome in outcomes}


def _plan(
    current: Current,
    gateway: HostState,
    steps: Sequence[Step | None],
    *,
    changes: Sequence[Change] = (),
    files: dict[str, dict[str, dict[str, str]]] | None = None,
    send_bytes: dict[str, int] | None = None,
    warnings: Sequence[str] = (),
) -> Plan:
    return Plan(
        based_on=current.digest(),
        gateway=gateway.name,
        deployment=NAME,
        verb="cluster",
        revision=0,
        model_yaml="",
        steps=tuple(step for step in steps if step is not None),
        files=files or {},
        changes=tuple(changes),
        send_bytes=send_bytes or {},
        warnings=tuple(warnings),
    )
