"""Clocks of hosts that are apart by more than is fine. Pure."""

from collections.abc import Iterator

from onprem_llm.checks.network import Host, Network
from onprem_llm.checks.network_sides import ROLE
from onprem_llm.checks.network_words import time_text
from onprem_llm.findings import Finding

APART = 0.1  # seconds; hosts that ask one time server are within some milliseconds
FAR_APART = 10  # seconds: certificates, tokens and logs disagree
SET = (
    "Have one service keep the clock on every host, with one source: chrony, or `timedatectl set-ntp true`. Without "
    "the internet one host may be the source of the others (chrony: `local stratum 10` and `allow` there)."
)


def clocks(network: Network) -> Iterator[Finding]:
    """Yield hosts whose clock differs from that of most others; else pairs that differ."""
    apart = {host: _apart(network, host) for host in network.hosts}
    own = {host: value for host, value in apart.items() if value is not None and abs(value) > APART}
    single = len(network.hosts) < 3 or len(own) > len(network.hosts) / 2
    if not single:
        for host, value in own.items():
            other, offset, bound = max(_seen(network, host), key=lambda one: abs(one[1]))
            way = "ahead of" if value > 0 else "behind"
            found = f"{time_text(value)} {way} the others ({other}: {time_text(offset)} ± {time_text(bound)})"
            yield _finding(network.hosts[host], host, abs(value), found)
    for pair in network.pairs:
        known = pair.offset is not None and pair.bound is not None
        if known and abs(pair.offset or 0) - (pair.bound or 0) > APART and (single or not {pair.a, pair.b} & set(own)):
            off, bound = pair.offset or 0, pair.bound or 0
            way = "behind" if off > 0 else "ahead of"
            found = f"{pair.a} is {time_text(off)} ± {time_text(bound)} {way} {pair.b}"
            yield _finding(network.hosts[pair.a], pair.a, abs(off), found)


def _seen(network: Network, host: str) -> list[tuple[str, float, float]]:
    """Return (other, the host's clock less the other's, bound) for each pair."""
    found = []
    for pair in network.pairs:
        if host in (pair.a, pair.b) and pair.offset is not None and pair.bound is not None:
            sign, other = (1, pair.a) if host == pair.b else (-1, pair.b)
            found.append((other, sign * pair.offset, pair.bound))
    return found


def _apart(network: Network, host: str) -> float | None:
    """Return what its clock is ahead of at least half of the others, by more than what is not known of it."""
    seen = _seen(network, host)
    certain = [max(0.0, abs(offset) - bound) * (1 if offset > 0 else -1) for _, offset, bound in seen]
    # The lower one of two in the middle: of three hosts, a good one has one bad and one good beside it.
    return sorted(certain, key=abs)[(len(certain) - 1) // 2] if certain else None


def _finding(host: Host, name: str, apart: float, found: str) -> Finding:
    keeper = f"{host.service} is at work on {name}" if host.service else f"nothing keeps the clock of {name}"
    keeper += {True: ", and says that it is right", False: ", and it is not synchronized", None: ""}[host.synchronized]
    level = "error" if apart > FAR_APART else "warning"
    return Finding(name, ROLE, "clock", level, f"{found}; {keeper}", f"within {time_text(APART)}", SET)
