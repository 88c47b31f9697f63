"""What guards the engines of a host: a firewall that lets in the gateways only, and a certificate."""

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import LOOPBACK, standing_claim
from onprem_llm.planning.certificates import engine_name, good
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.out_of_sight import engine_sources
from onprem_llm.planning.types import Order


def guards(current: Current, fleet: Fleet, gateway: HostState, *, tls: bool) -> dict[str, Order]:
    """Return host -> the parts of an apply order that are not as they should be; hosts that are right are left out.

    Other deployments' hosts too: a gateway that is new must reach every engine.
    """
    hosts = {replica.host.name: replica.host for replica in fleet.replicas}
    others = [host for host in current.hosts if host.name not in hosts and standing_ports(host)]
    found: dict[str, Order] = {}
    for host in hosts.values():
        order = {**_firewall(host, fleet, current), **(_certificate(host, gateway) if tls else {})}
        if order:
            found[host.name] = order
    found |= {host.name: {"keys": [], **order} for host in others if (order := _firewall(host, fleet, current))}
    return found


def _firewall(host: HostState, fleet: Fleet, current: Current) -> dict[str, object]:
    """Rules for every engine's port of the host; rules for ports that nobody has any more do no harm and stay."""
    planned = {r.claim.port for r in fleet.replicas if r.host.name == host.name and r.claim.address != LOOPBACK}
    ports = planned | standing_ports(host)
    there = host.firewall
    if not ports and not there:
        return {}
    sources = engine_sources(current, host)
    if there and there.active and ports <= set(there.ports) and sources == sorted(there.sources):
        return {}
    return {"firewall": {"ports": sorted(ports), "sources": sources}}


def standing_ports(host: HostState) -> set[int]:
    """Return the ports of the engines that stand on a host."""
    claims = [standing_claim(host, name) for name, p in host.projects.items() if p.label("deployment") is not None]
    return {claim.port for claim in claims if claim is not None and claim.address != LOOPBACK}


def _certificate(host: HostState, gateway: HostState) -> dict[str, object]:
    name = engine_name(host.name)
    if good(host, "engine", [name], gateway):
        return {}
    return {"engine_tls": {"name": name, "ca_host": gateway.name}}
