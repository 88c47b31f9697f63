"""The network of a gang: at which address and by which interface its hosts meet, and which ports are its own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import HostState
from onprem_llm.hosts_digest import block_of
from onprem_llm.rendering.ranks import BLOCK, replica_of
from onprem_llm.spec.site import GangPorts

OVERRIDE = "onprem_llm_gang_interface"


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where a host meets the others of a gang."""

    address: str
    interface: str


def meeting_of(host: HostState) -> Meeting:
    """Return the address at which other hosts reach this one, and its interface; the inventory may name another one.

    InvalidError where the interface has no address, or none is known.
    """
    wanted = host.gang_interface
    if wanted is None:
        interface = host.interfaces.get(host.cluster_address)
        if interface is None:
            raise InvalidError(
                f"{host.name}: no network interface has {host.cluster_address}, the address at which others reach it",
                hint=f"name the interface by which gangs meet there in the inventory: {host.name} {OVERRIDE}=eth0",
            )
        return Meeting(host.cluster_address, interface)
    addresses = [address for address, interface in host.interfaces.items() if interface == wanted]
    if not addresses:
        known = ", ".join(sorted(set(host.interfaces.values()))) or "none"
        raise InvalidError(
            f"{host.name}: {OVERRIDE} is {wanted}, which has no address there",
            hint=f"interfaces of {host.name} with an address: {known}",
        )
    # One that is of the same family as the others' goes first.
    alike = [address for address in addresses if (":" in address) == (":" in host.cluster_address)]
    return Meeting((alike or addresses)[0], wanted)


def choose_ports(
    ports: GangPorts, hosts: Sequence[HostState], replica: str, given: Mapping[str, Collection[int]]
) -> int:
    """Return the first of BLOCK ports in a row that are the gang's on all of its hosts; what it has so far stays.

    `given`: host -> ports that this plan gave to other gangs there. InvalidError names who has them.
    """
    own = [_standing(host, replica, mine=True) for host in hosts]
    others = [_standing(host, replica, mine=False) | set(given.get(host.name, ())) for host in hosts]
    reasons: dict[str, str] = {}
    firsts = list(range(ports.first, ports.last - BLOCK + 2, BLOCK))
    kept = [first for first in firsts if all(first in one for one in own)]
    for first in [*kept, *firsts]:
        block = range(first, first + BLOCK)
        wrong = [
            text
            for host, mine, taken in zip(hosts, own, others, strict=True)
            if (text := _in_the_way(host, block, mine, taken))
        ]
        if not wrong:
            return first
        reasons |= dict.fromkeys(wrong, "")
    where = " and ".join(host.name for host in hosts)
    raise InvalidError(
        f"no {BLOCK} ports in a row of onprem_llm_site.gang_ports ({ports.first} to {ports.last}) are free on {where} "
        f"for {replica}",
        details="\n".join(list(reasons)[:8]),
        hint="stop what holds them, or widen onprem_llm_site.gang_ports",
    )


def _standing(host: HostState, replica: str, *, mine: bool) -> set[int]:
    """Return the ports that gangs have on a host: this one's, or all others'."""
    labels = [p.label("gang_ports") for name, p in host.projects.items() if (replica_of(name) == replica) is mine]
    return {port for label in labels for port in block_of(label)}


def _in_the_way(host: HostState, block: range, mine: Collection[int], taken: Collection[int]) -> str | None:
    busy = next((port for port in block if port in taken), None)
    if busy is not None:
        return f"{host.name}: {busy} is another gang's"
    held = next((s for s in host.listeners if s.port in block and s.port not in mine), None)
    if held is None:
        return None
    return f"{host.name}: {held.port} is used by {held.holder}"
