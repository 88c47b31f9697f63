"""What guards the engines of a host: a firewall that lets in the gateways only, and a certificate."""

from collections.abc import Collection, Iterable

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import LOOPBACK, Claim, standing_claim
from onprem_llm.planning.certificates import engine_name, good
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gang_walls import gang_rules, gang_walls
from onprem_llm.planning.out_of_sight import engine_sources
from onprem_llm.planning.types import Order


def guards(current: Current, fleet: Fleet, gateway: HostState, *, tls: bool) -> dict[str, Order]:
    """Return host -> the parts of an apply order that are not as they should be; hosts that are right are left out.

    Other deployments' hosts too: a gateway that is new must reach every engine.
    """
    hosts = {replica.host.name: replica.host for replica in fleet.projects}
    others = [host for host in current.hosts if host.name not in hosts and standing_claims(host)]
    found: dict[str, Order] = {}
    for host in hosts.values():
        order = {**_firewall(host, fleet, current), **(_certificate(host, gateway) if tls else {})}
        if order:
            found[host.name] = order
    found |= {host.name: {"keys": [], **order} for host in others if (order := _firewall(host, fleet, current))}
    return found


def _firewall(host: HostState, fleet: Fleet, current: Current) -> dict[str, object]:
    """Rules for the engines of a host: without a port where all listen on loopback, since containers have addresses.

    Ports that nobody has any more stay until a deployment there is taken away: one whose container is gone for now
    cannot be told from them.
    """
    planned = [replica.claim for replica in fleet.replicas if replica.host.name == host.name]
    claims, gangs = [*planned, *standing_claims(host)], gang_walls(host, current, fleet)
    there = host.firewall
    if not claims and not gangs and not there:
        return {}
    ports, sources = _reachable(claims), engine_sources(current, host)
    right = there is not None and there.active and set(gangs) <= set(there.gangs)
    if there and right and ports <= set(there.ports) and sources == sorted(there.sources):
        return {}
    return {"firewall": {"ports": sorted(ports), "sources": sources, **gang_rules(gangs)}}


def firewall_without(
    host: HostState,
    current: Current,
    gone: Collection[str],
    staying: Collection[Claim] = (),
    fleet: Fleet | None = None,
) -> dict[str, object]:
    """Return what of a remove order lets others have the ports of projects that are gone; empty where none had any.

    `staying`: what other replicas listen on there once all is done. With the last engine the whole table goes.
    """
    there = host.firewall
    engines = [name for name in _engines(host) if name not in gone]
    if there is None:
        return {}
    if not engines and not staying and not gang_walls(host, current, fleet, gone):
        return {"firewall": {"ports": [], "sources": [], "state": "absent"}}
    kept = _reachable([*staying, *(c for c in standing_claims(host) if c.project not in gone)])
    free = _reachable(c for c in standing_claims(host) if c.project in gone) - kept
    ports = sorted((set(there.ports) | kept) - free)
    gangs = gang_walls(host, current, fleet, gone)
    if not free and set(gangs) == set(there.gangs):
        return {}
    return {"firewall": {"ports": ports, "sources": engine_sources(current, host), **gang_rules(gangs)}}


def standing_claims(host: HostState) -> list[Claim]:
    """Return what the engines that stand on a host listen on."""
    claims = (standing_claim(host, name) for name in host.projects if host.projects[name].label("deployment"))
    return [claim for claim in claims if claim is not None]


def _engines(host: HostState) -> list[str]:
    """Name the projects that are engines, or may be: without a container there is no label to tell."""
    return [
        name
        for name, project in host.projects.items()
        if project.label("deployment") or (not project.containers and name.rpartition("-")[2].isdigit())
    ]


def _reachable(claims: Iterable[Claim]) -> set[int]:
    return {claim.port for claim in claims if claim.address != LOOPBACK}


def _certificate(host: HostState, gateway: HostState) -> dict[str, object]:
    name = engine_name(host.name)
    if good(host, "engine", [name], gateway):
        return {}
    return {"engine_tls": {"name": name, "ca_host": gateway.name}}
