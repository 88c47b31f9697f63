"""What is wrong with the lines between hosts: a pure function of what was measured, one finding a fault.

What is true of all lines to or from a host is said once, of that host: then it is the host's own, and not a line's.
"""

from collections.abc import Iterator, Sequence
from statistics import median

from onprem_llm.checks.network import Link, Network, Pair
from onprem_llm.checks.network_clock import clocks
from onprem_llm.checks.network_ports import ports
from onprem_llm.checks.network_sides import ROLE, Side, sides
from onprem_llm.checks.network_words import rate_text, time_text
from onprem_llm.findings import Finding, names

SLOW = 0.5  # of the median of all lines, and of what the cards are good for
UNEVEN = 0.6  # of the other direction
BUSY = 90  # percent of a core: then the processor was measured, not the line
FAR = 3  # times the median delay, and at least
FAR_AT_LEAST = 0.001  # seconds more than it
CABLE = (
    "Look at cable, transceiver and switch port: `ethtool {device}` for the speed that was agreed on, `ethtool -S "
    "{device}` for errors; then at what else uses the line."
)
LET_IN = (
    "The hosts' addresses in the cluster (docs/network.md) must reach each other: look at routes, and at firewalls "
    "between them for the ports that are named; then run it again."
)
INSTALL = (
    "onprem-llm bootstrap installs iperf3 where the package source has it; or by hand: apt-get install iperf3, "
    "dnf install iperf3. All else was measured without."
)
ONE_SIZE = (
    "Give the interfaces of all hosts and every switch port between them one MTU (ip link set dev {device} mtu SIZE, "
    "and where the system keeps it). By hand: ping -M do -s {payload} {address}."
)


def judge(network: Network) -> dict[str, tuple[Finding, ...]]:
    """Return host -> findings; a finding that is about two hosts stands at the one where to look first."""
    every = [*_met(network), *_bandwidth(network), *_uneven(network), *_cards(network), *_far(network)]
    every += [*_sizes(network), *ports(network), *clocks(network)]
    found: dict[str, list[Finding]] = {host: [] for host in network.hosts}
    for one in every:
        found[one.host].append(one)
    return {host: tuple(those) for host, those in found.items()}


def _finding(host: str, check: str, level: str, found: str, expected: str, remedy: str = "") -> Finding:
    return Finding(host, ROLE, check, level, found, expected, remedy)


def _met(network: Network) -> Iterator[Finding]:
    """Hosts that took no part, and pairs that could not be measured."""
    if len(network.hosts) == 1:
        alone = next(iter(network.hosts))
        yield _finding(alone, "network", "ok", "not measured: there is no other host", "two hosts or more")
    out = {name: host.error for name, host in network.hosts.items() if host.error}
    for name, error in out.items():
        yield _finding(name, "network", "error", f"took no part: {error}", "every host is measured with", LET_IN)
    bad = [pair for pair in network.pairs if pair.error and not {pair.a, pair.b} & set(out)]
    for host in network.hosts:
        own = [pair for pair in bad if host in (pair.a, pair.b)]
        if len(own) > 1 and len(own) == len(network.hosts) - 1 - len(out):
            others = [pair.b if pair.a == host else pair.a for pair in own]
            found = f"measured with none of {names(others)}: {own[0].error}"
            yield _finding(host, "network", "error", found, "every host is measured with", LET_IN)
            bad = [pair for pair in bad if pair not in own]
    for pair in bad:
        found = f"not measured with {pair.b}: {pair.error}"
        yield _finding(pair.a, "network", "error", found, "every pair is measured", LET_IN)


def _bandwidth(network: Network) -> Iterator[Finding]:
    """Lines that are slow beside the others, and those without a figure."""
    for name, host in network.hosts.items():
        if host.iperf3 is False and not host.error:
            yield _finding(name, "bandwidth", "warning", "not measured: iperf3 is not installed", "iperf3", INSTALL)
    for link in network.links:
        if link.error:
            found = f"from {link.source} to {link.target}: {link.error}"
            yield _finding(link.source, "bandwidth", "warning", found, "a figure for each line", LET_IN)
    usual = _usual(network)
    slow = slow_links(network)
    for side in sides(slow, [link for link in network.links if link.rate is not None]):
        expected = f"{rate_text(SLOW * (usual or 0))} or more: half of the site's median, {rate_text(usual or 0)}"
        remedy = CABLE.format(device=side.device or "DEVICE")
        yield _finding(side.host, "slow_line", "warning", _slow_text(side, network), expected, remedy)
    for name, links in network.of_host.items():
        if rates := [link.rate for link in links if link.rate is not None]:
            found = f"{rate_text(median(rates))} (median), {rate_text(min(rates))} at least"
            yield _finding(name, "bandwidth", "ok", found, f"{rate_text(SLOW * usual)} or more" if usual else "-")


def _usual(network: Network) -> float | None:
    """Return the median of all rates; None where there are too few to call anything usual."""
    rates = [link.rate for link in network.links if link.rate is not None]
    return median(rates) if len(rates) > 2 else None


def slow_links(network: Network) -> list[Link]:
    """Return the lines under half of the median, slowest first; for planning too: no gang belongs on them."""
    usual = _usual(network)
    found = [link for link in network.links if usual and link.rate is not None and link.rate < SLOW * usual]
    return sorted(found, key=lambda link: link.rate or 0)


def _slow_text(side: Side, network: Network) -> str:
    link = min(side.links, key=lambda one: one.rate or 0)
    back = _back(network, link)
    words = f"{rate_text(link.rate or 0)} from {link.source} to {link.target}"
    words += f", {rate_text(back.rate)} back" if back and back.rate is not None else ""
    words += f", {link.again} segments sent again" if link.again else ""
    return f"{side.whole}: {words}" if side.whole else words


def _back(network: Network, link: Link) -> Link | None:
    return network.line.get((link.target, link.source))


def uneven_links(network: Network) -> Iterator[tuple[Link, float]]:
    """Yield the lines that are slow beside their own way back, and its rate; without those of slow_links."""
    slow = set(slow_links(network))
    for link in network.links:
        back = _back(network, link)
        if back is None or link.rate is None or back.rate is None or link.busy >= BUSY:
            continue
        if link.rate < UNEVEN * back.rate and link not in slow:
            yield link, back.rate


def _uneven(network: Network) -> Iterator[Finding]:
    """Lines of which one direction is slow; one that is slow beside all others has been named with both figures."""
    for link, back in uneven_links(network):
        found = f"{rate_text(link.rate or 0)} from {link.source} to {link.target}, {rate_text(back)} back"
        yield _finding(link.source, "uneven_line", "warning", found, "about the same both ways",
                       CABLE.format(device=link.device or "DEVICE"))  # fmt: skip


def _cards(network: Network) -> Iterator[Finding]:
    """Lines under half of what the cards on both ends are good for; a host's are named together."""
    slow, bad = set(slow_links(network)), dict[str, list[tuple[Link, float]]]()
    for link in network.links:
        back = _back(network, link)
        if link.rate is None or link.nic is None or back is None or back.nic is None or link.busy >= BUSY:
            continue
        speed = min(link.nic, back.nic)
        if link.rate < SLOW * speed and link not in slow:
            bad.setdefault(link.source, []).append((link, speed))
    for host, links in bad.items():
        link, speed = min(links, key=lambda one: one[0].rate or 0)
        found = f"{rate_text(link.rate or 0)} from {host} to {link.target}"
        found += f"; slow to {names([one.target for one, _ in links])}" if len(links) > 1 else ""
        expected = f"{rate_text(SLOW * speed)} or more: the cards on both ends do {rate_text(speed)}"
        yield _finding(host, "line_speed", "warning", found, expected, CABLE.format(device=link.device or "DEVICE"))


def _far(network: Network) -> Iterator[Finding]:
    """Pairs whose delay is far over that of the others."""
    known = [pair.rtt_median for pair in network.pairs if pair.rtt_median is not None]
    if len(known) < 3:
        return
    usual = median(known)
    for pair in network.pairs:
        trip = pair.rtt_median
        if trip is not None and trip > FAR * usual and trip > usual + FAR_AT_LEAST:
            found = (
                f"{time_text(trip)} from {pair.a} to {pair.b} and back, {time_text(pair.rtt_worst or trip)} at worst"
            )
            expected = f"under {FAR} times the site's median, {time_text(usual)}"
            remedy = f"Look at the way there: ip route get {_address(network, pair)}, traceroute."
            yield _finding(pair.a, "delay", "warning", found, expected, remedy)


def _address(network: Network, pair: Pair) -> str:
    return network.hosts[pair.b].address or pair.b


def _sizes(network: Network) -> Iterator[Finding]:
    """Lines that lose packets which the interface sends, and interfaces that are set differently."""
    lost = [link for link in network.links if link.mtu and link.device_mtu and link.mtu < link.device_mtu]
    for side in sides(lost, [link for link in network.links if link.mtu]):
        link = min(side.links, key=lambda one: one.mtu or 0)
        found = f"packets over {link.mtu} bytes from {link.source} to {link.target} are lost"
        expected = f"{link.device_mtu} bytes, as {link.device} of {link.source} sends them"
        remedy = ONE_SIZE.format(
            device=link.device, payload=(link.device_mtu or 0) - 28, address=network.hosts[link.target].address
        )
        yield _finding(side.host, "mtu", "error", f"{side.whole}: {found}" if side.whole else found, expected, remedy)
    yield from _unequal(network, lost)
    for link in network.links:
        if link.device_mtu and link.mtu is None:
            found = f"the largest packet from {link.source} to {link.target} is not known: UDP does not get there"
            yield _finding(link.source, "mtu", "warning", found, f"{link.device_mtu} bytes", LET_IN)


def _unequal(network: Network, lost: Sequence[Link]) -> Iterator[Finding]:
    losing = set(lost)
    for pair in network.pairs:
        known = [link for link in pair.links if link.device_mtu]
        if len(known) == 2 and len({link.device_mtu for link in known}) == 2 and not set(known) & losing:
            one, other = known
            found = f"{one.device} of {one.source} has {one.device_mtu} bytes, {other.device} of {other.source} "
            found += f"{other.device_mtu}"
            remedy = ONE_SIZE.format(
                device=one.device, payload=(one.device_mtu or 0) - 28, address=network.hosts[one.target].address
            )
            yield _finding(pair.a, "mtu", "warning", found, "one MTU on all hosts", remedy)
