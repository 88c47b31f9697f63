"""From a report's measurements to the lines that facts keep: each with what is wrong with it. Pure."""

from onprem_llm.checks.network import Link, Network, network_of
from onprem_llm.checks.network_judge import slow_links, uneven_links
from onprem_llm.checks.network_words import ports_text, rate_text
from onprem_llm.checks.report import Report
from onprem_llm.errors import InvalidError
from onprem_llm.spec.network_facts import LineFacts, NetworkFacts


def kept(report: Report, where: str) -> NetworkFacts:
    """Return what facts keep of a report; InvalidError for one without lines. `where` names its file."""
    if report.network is None:
        raise InvalidError(
            f"{where}: found a report without lines between hosts, expected one with them",
            hint="name a file that `onprem-llm check --network --save FILE` has written",
        )
    network = network_of(report.network)
    why = {link: f"slow: {rate_text(link.rate or 0)}, under half of the median" for link in slow_links(network)}
    why |= {
        link: f"uneven: {rate_text(link.rate or 0)}, {rate_text(back)} the other way"
        for link, back in uneven_links(network)
    }
    lines = [_line(link, why.get(link)) for link in network.links]
    lines += [line for pair in network.pairs if pair.error for line in _broken(network, pair.a, pair.b, pair.error)]
    return NetworkFacts(
        measured_at=report.made_at, lines=tuple(sorted(lines, key=lambda one: (one.source, one.target)))
    )


def _line(link: Link, slow: str | None) -> LineFacts:
    problems = [slow] if slow else []
    if link.mtu and link.device_mtu and link.mtu < link.device_mtu:
        problems.append(f"packets over {link.mtu} bytes are lost, {link.device_mtu} are sent")
    if link.blocked:
        problems.append(f"TCP ports are shut: {ports_text(port for port, _ in link.blocked)}")
    rate = round(link.rate) if link.rate is not None else None
    return LineFacts(
        source=link.source, target=link.target, bits_per_second=rate, mtu=link.mtu, problems=tuple(problems)
    )


def _broken(network: Network, a: str, b: str, error: str) -> list[LineFacts]:
    """Return the directions of a pair that was not measured at all; one that broke off has lines of its own."""
    return [
        LineFacts(source=source, target=target, bits_per_second=None, mtu=None, problems=(f"not measured: {error}",))
        for source, target in ((a, b), (b, a))
        if (source, target) not in network.line
    ]
