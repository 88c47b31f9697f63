"""The site's Ray cluster, brought up or changed to what the inventory's groups and the site's settings say."""

from collections.abc import Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.about_hosts import host_plan
from onprem_llm.planning.difference import Outcome
from onprem_llm.planning.host_checks import require_host
from onprem_llm.planning.ray_again import tell_again
from onprem_llm.planning.ray_hosts import (
    WORKER_GROUP,
    RayHosts,
    check_places,
    check_ray_ports,
    ray_hosts,
    require_prepared,
)
from onprem_llm.planning.ray_nodes import KEY, PlannedNode, plan_node, token_keeper
from onprem_llm.planning.ray_rolling import Known, changed
from onprem_llm.planning.ray_steps import NAME
from onprem_llm.planning.ray_up_warnings import up_warnings
from onprem_llm.planning.staging import HostWork, check_space, image_for
from onprem_llm.planning.steps import stage_step
from onprem_llm.planning.types import Change, ImageSource, Order, Plan, Step
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.spec.site import Site


@dataclass(frozen=True, slots=True)
class PlannedUp:
    """The plan, and what a person should be asked. `ends`: why what the nodes serve ends meanwhile."""

    plan: Plan
    ends: str | None = None


@dataclass(frozen=True, slots=True)
class OtherImage:
    """The head is to run another image: its id now. `there`: the host has the new one, so that it can be asked."""

    head: HostState
    standing: str
    wanted: str
    there: bool


def other_image(current: Current, image: ImageSource) -> OtherImage | None:
    """Say that the head that stands would get another image; None where it keeps its own, or there is none."""
    hosts = ray_hosts(current)
    project = hosts.head.projects.get(HEAD_PROJECT)
    if project is None or not project.containers:
        return None
    wanted, standing = image_for(hosts.head, image, None), project.containers[0].image
    if wanted.id == standing:
        return None
    there = wanted.id is not None and hosts.head.image(wanted.id) is not None
    return OtherImage(hosts.head, standing, wanted.reference, there)


def plan_image(site: Site, current: Current, gateway: HostState, image: ImageSource) -> Plan:
    """Plan to bring an image to the cluster's hosts and to ask it for its Ray; no node is changed."""
    hosts = ray_hosts(current)
    require_prepared(hosts.all, current)
    nodes = _nodes(site, current, hosts, image, None)
    work = _staging(nodes)
    steps = [stage_step(site, work, gateway), _image_step(nodes)]
    return host_plan("cluster", NAME, current, gateway, steps, _staged(work), send_bytes=_sends(work))


def plan_up(
    site: Site,
    current: Current,
    gateway: HostState,
    image: ImageSource,
    only: str | None = None,
    known: Known | None = None,
) -> PlannedUp:
    """Plan the cluster as the inventory has it: the head, then the workers, each once the one before is ready.

    `only`: no other worker is started; those that stand learn of it. Nodes that the inventory does not have any more
    are left to `cluster drain` and `cluster down`, and named.
    """
    hosts = ray_hosts(current)
    parked = [host.name for host in hosts.workers if is_parked(current, host)]
    if only is not None:
        _check_added(current, hosts, only, parked)
    here = [host for host in hosts.all if host.name not in parked]
    require_prepared(here, current)
    check_places(current, hosts)
    check_ray_ports(site, here)
    nodes = _nodes(site, current, hosts, image, only)
    if only is not None:
        _check_others(nodes, only)
    head, workers = nodes[0], nodes[1:]
    keeper = token_keeper(current, gateway)
    work, rolled = _staging(nodes), changed(site, current, hosts, head, workers, keeper, known or Known())
    kept, keeping = _kept(gateway, keeper)
    # A head that begins may have forgotten what the book has; one that remembers is told nothing.
    again = tell_again(site, current, hosts) if head.outcome.needed else None
    files = _files(nodes)
    if again is not None:
        files[hosts.head.name] |= again[1]
    plan = host_plan(
        "cluster",
        NAME,
        current,
        gateway,
        [stage_step(site, work, gateway), _image_step(nodes), kept, *rolled.steps, again and again[0]],
        [*keeping, *_staged(work), *(one.outcome.change for one in nodes), *_guarded(nodes)],
        files=files,
        send_bytes=_sends(work),
        warnings=up_warnings(image.ref, current, hosts, rolled, nodes, parked),
    )
    return PlannedUp(plan, rolled.ends)


def _kept(gateway: HostState, keeper: HostState) -> tuple[Step | None, list[Change]]:
    """Return the step that gives the token to a gateway host that took a lost one's place; without it all would end."""
    if keeper is gateway:
        return None, []
    order: Order = {"keys": [KEY], "keys_host": keeper.name, "projects": []}
    why = f"it is on {keeper.name}, and not where keys are kept"
    return Step("apply", "Keep the token", {gateway.name: order}), [
        Change(gateway.name, "token of Ray", "create", (why,))
    ]


def is_parked(current: Current, host: HostState) -> bool:
    """Tell whether the book has a host drained, and no node is on it: none comes there."""
    mark = current.marks.get(host.name)
    return mark is not None and mark.state == "drained" and WORKER_PROJECT not in host.projects


def _check_added(current: Current, hosts: RayHosts, only: str, parked: Sequence[str]) -> None:
    require_host(current, only)
    if only not in [host.name for host in hosts.workers]:
        raise InvalidError(
            f"{only} is not in the inventory's group {WORKER_GROUP}",
            hint=f"write it into [{WORKER_GROUP}], then run this again",
        )
    if only in parked:
        raise InvalidError(f"{only} is drained: nothing new goes there", hint=f"onprem-llm host undrain {only}")


def _check_others(nodes: Sequence[PlannedNode], only: str) -> None:
    """Raise InvalidError where another node that stands would be changed: that is more than was asked for."""
    others = [one.host.name for one in nodes if one.host.name != only and one.outcome.change.action == "update"]
    if others:
        raise InvalidError(
            f"the nodes on {', '.join(others)} are not as the site's settings say, and would be changed, too",
            hint="onprem-llm cluster up changes all of them, one after another, and starts what is missing",
        )


def _nodes(
    site: Site, current: Current, hosts: RayHosts, image: ImageSource, only: str | None
) -> tuple[PlannedNode, ...]:
    """Return the head's node, then those of the workers that are to be."""
    wanted = [
        host
        for host in hosts.workers
        if (only in (None, host.name) or WORKER_PROJECT in host.projects) and not is_parked(current, host)
    ]
    head = plan_node(site, current, hosts, hosts.head, "head", image)
    return (head, *(plan_node(site, current, hosts, host, "worker", image) for host in wanted))


def _staging(nodes: Sequence[PlannedNode]) -> dict[str, HostWork]:
    work = {}
    for one in nodes:
        if one.image.order is not None:
            work[one.host.name] = HostWork(one.host, [one.image])
            check_space(one.host, weights=0, images=one.image.bytes)
    return work


def _sends(work: dict[str, HostWork]) -> dict[str, int]:
    return {name: part.bytes for name, part in work.items() if part.bytes}


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


def _files(nodes: Sequence[PlannedNode]) -> dict[str, dict[str, dict[str, str]]]:
    outcomes: list[tuple[str, Outcome]] = [(one.host.name, one.outcome) for one in nodes]
    return {name: {outcome.rendered.project: dict(outcome.rendered.files)} for name, outcome in outcomes}
