"""Which hosts pass weights on to each other, instead of each getting them from this machine; chains for images too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from onprem_llm.hosts import HostState
from onprem_llm.planning.staging import HostWork, WeightsNeed
from onprem_llm.planning.types import Step
from onprem_llm.spec.site import Site

# Below this it takes longer to begin a chain than to send it to each host.
WORTH = 1024**3
PORTS = range(7470, 7570)


@dataclass(frozen=True, slots=True)
class Chain:
    """Hosts by name, with their addresses in the cluster; the first one has everything when it begins."""

    members: tuple[tuple[str, str], ...]
    port: int

    @property
    def source(self) -> str:
        """Return who has everything."""
        return self.members[0][0]

    def order(self) -> dict[str, object]:
        """Return it as fan_out.yml's orders have it."""
        return {"members": [list(member) for member in self.members], "port": self.port}


def along_a_chain(site: Site, hosts: Sequence[HostState], needs: Mapping[str, WeightsNeed]) -> dict[str, WeightsNeed]:
    """Return the needs, those of all hosts but one with a chain that brings them.

    One that has the weights already is the source, else the first that gets them from this machine. Nothing changes
    for fewer than two receivers, for little, for a shared folder, and where hosts do not have an address each.
    """
    lacking = [host for host in hosts if host.name in needs and needs[host.name].order["send"]]
    whole = [host for host in hosts if host.name not in needs]
    source, receivers = (whole[0], lacking) if whole else (lacking[0], lacking[1:]) if lacking else (None, [])
    setting = site.fan_out
    size = max((needs[host.name].bytes for host in receivers), default=0)
    if source is None or len(receivers) < 2 - (not whole) or setting == "never" or site.weights_dir.shared:
        return dict(needs)
    if setting == "auto" and size < WORTH:
        return dict(needs)
    chain = chain_of([source, *receivers])
    if chain is None:
        return dict(needs)
    return {**needs, **{host.name: _passed_on(needs[host.name], chain) for host in receivers}}


def chain_of(members: Sequence[HostState]) -> Chain | None:
    """Return the chain of these hosts; None where one cannot be: no free port, or no address for each of its own."""
    port = next((port for port in PORTS if not any(s.port == port for m in members for s in m.listeners)), None)
    if port is None or not _apart(members):
        return None
    return Chain(tuple((host.name, host.cluster_address) for host in members), port)


def _apart(hosts: Sequence[HostState]) -> bool:
    """Tell whether each host has an address of its own at which another one may reach it.

    One with a scope (fe80::1%eth0) is a host's own word for one of its lines: another one has other words.
    """
    addresses = {host.cluster_address for host in hosts}
    if any("%" in address for address in addresses):
        return False
    try:
        return len(addresses) == len(hosts) and not any(ip_address(address).is_loopback for address in addresses)
    except ValueError:  # a name: nothing is known of what it leads to
        return False


def _passed_on(need: WeightsNeed, chain: Chain) -> WeightsNeed:
    change = need.change and replace(need.change, reasons=(*need.change.reasons, f"passed on from {chain.source}"))
    return replace(need, chain=chain, change=change)


def fan_out_step(work: Mapping[str, HostWork]) -> Step | None:
    """Return the step in which the hosts of a chain pass weights on; None without a chain."""
    needs = {name: part.weights for name, part in work.items() if part.weights and part.weights.chain}
    chain = next((need.chain for need in needs.values()), None)
    if chain is None:
        return None
    some = next(iter(needs.values())).order
    # The source gives what anybody lacks. Its own order, if it had one, has been carried out.
    given = {**some, "send": []}
    orders = {
        name: {"weights": [needs[name].order if name in needs else given], "chain": chain.order()}
        for name, _ in chain.members
    }
    return Step("fan_out", "Pass the weights on", orders)
