"""The address that the gateway hosts share: held by one whose HAProxy answers, taken over when that one is gone."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import LOOPBACK, bind_address
from onprem_llm.planning.difference import Outcome, compare
from onprem_llm.planning.out_of_sight import gateway_peers, unseen_gateways
from onprem_llm.planning.removal import removal
from onprem_llm.planning.replica_orders import project_order
from onprem_llm.planning.replicas import serves
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import Change, ImageSource, Step, Wanted
from onprem_llm.rendering.keepalived import CONFIG, PROJECT, SharedAddress, draft
from onprem_llm.spec.site import Site

__all__ = ["PROJECT", "PlannedAddress", "address_steps", "plan_shared_address"]

SETTING = "onprem_llm_site.gateway"
START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class PlannedAddress:
    """keepalived on one gateway host; without an outcome it is taken away."""

    host: HostState
    change: Change
    outcome: Outcome | None = None
    image: HostImage | None = None


def plan_shared_address(site: Site, wanted: Wanted, current: Current) -> tuple[PlannedAddress, ...]:
    """Render keepalived for every gateway host, and take it away where it is not wanted.

    InvalidError where an address cannot be shared. A site with one gateway host may have such an address too: its
    clients then need not change when a second one comes.
    """
    address = site.gateway.address
    gateways = current.gateways if address is not None else ()
    names = {host.name for host in gateways}
    gone = [host for host in current.hosts if PROJECT in host.projects and host.name not in names]
    planned = [_plan(site, wanted, current, gateways, rank, address or "") for rank in range(len(gateways))]
    why = "no gateway.address is set" if address is None else "this is no gateway host"
    return (*planned, *(PlannedAddress(host, Change(host.name, PROJECT, "remove", (why,))) for host in gone))


def _plan(
    site: Site, wanted: Wanted, current: Current, gateways: Sequence[HostState], rank: int, address: str
) -> PlannedAddress:
    host = gateways[rank]
    _check(site, current, host, address)
    image = image_for(host, wanted.gateway_image or ImageSource(site.gateway.image), None)
    shared = SharedAddress(
        image=image.reference,
        address=address,
        interface=_interface(site, host),
        own=host.cluster_address,
        peers=gateway_peers(current, host),
        rank=rank,
    )
    why = (f"shares {address}",)
    outcome = compare(host, draft(shared), revision=None, image_id=image.id, secrets={}, why=why)
    outcome = outcome.anew_with(CONFIG, host)
    untouched = _untouched(current, host, address)
    if untouched is not None:
        outcome = replace(outcome, change=Change(host.name, PROJECT, "keep", untouched))
    return PlannedAddress(host, outcome.change, outcome, image)


def _untouched(current: Current, host: HostState, address: str) -> tuple[str, ...] | None:
    """Say why keepalived is left as it is while a gateway host is silent; None where it is not.

    One that starts anew lets the address go, and nobody may be there to take it. One that is new has to be known to all
    of them, the silent one too: both would have the address once that is back.
    """
    if not unseen_gateways(current):
        return None
    if PROJECT in host.projects:
        return () if serves(host, PROJECT) and _shares(host, address) else None
    if any(PROJECT in other.projects for other in current.gateways):
        return ("it shares the address once the silent gateway host is back",)
    return None


def _check(site: Site, current: Current, host: HostState, address: str) -> None:
    if bind_address(site.gateway.listen, host, SETTING) == LOOPBACK:
        raise InvalidError(
            f"{SETTING}: found listen: {site.gateway.listen} and address: {address}: a gateway that listens on "
            f"{LOOPBACK} only is not reached at a shared address",
            hint="write listen: all, or listen: cluster; or take address away",
        )
    owner = next((one for one in current.hosts if address in one.addresses and not _shares(one, address)), None)
    if owner is not None:
        raise InvalidError(
            f"{SETTING}.address: {address} is an address of {owner.name} itself",
            hint="choose one of the hosts' network that no machine has; it wanders between the gateway hosts",
        )
    version = ipaddress.ip_address(address).version
    try:
        same = ipaddress.ip_address(host.cluster_address).version == version
    except ValueError:  # a name: there is no telling
        same = True
    if not same:
        raise InvalidError(
            f"{SETTING}.address: {address} is IPv{version}, and {host.name} is reached at {host.cluster_address}",
            hint="choose an address of the same family as the hosts'",
        )


def _shares(host: HostState, address: str) -> bool:
    project = host.projects.get(PROJECT)
    return project is not None and project.label("address") == address


def _interface(site: Site, host: HostState) -> str:
    """Return the interface that the shared address is put on: the named one, else that of the cluster address."""
    known = set(host.interfaces.values())
    named = site.gateway.interface
    if named is not None and known and named not in known:
        raise InvalidError(
            f"{SETTING}.interface: found {named}, which {host.name} does not have or which has no address there",
            hint=f"{host.name} has {', '.join(sorted(known))}; without the setting the cluster address's is taken",
        )
    found = named or host.interfaces.get(host.cluster_address)
    if found is None:
        raise InvalidError(
            f"{host.name}: no network interface has {host.cluster_address}, so there is no telling where "
            f"{site.gateway.address} belongs",
            hint=f"name it: {SETTING}.interface",
        )
    return found


def address_steps(site: Site, planned: Iterable[PlannedAddress], keys_host: HostState) -> tuple[Step, ...]:
    """Return the steps, a host at a time: while one starts anew the other holds the address."""
    steps = []
    for one in planned:
        if one.outcome is None:
            steps.append(Step("remove", "Give up the shared address", {one.host.name: removal(site, [PROJECT])}))
        elif one.outcome.needed:
            project = project_order(site, one.outcome, (), [], wait=START_SECONDS, readiness=None)
            order = {"keys": [], "keys_host": keys_host.name, "projects": [project]}
            title = f"Share {site.gateway.address} on {one.host.name}"
            steps.append(Step("apply", title, {one.host.name: order}))
    return tuple(steps)
