"""Ports of the engine's own range, and of the kernel's, that hosts do not reach at each other. Pure."""

from collections.abc import Iterator

from onprem_llm.checks.network import Link, Network
from onprem_llm.checks.network_sides import ROLE, sides
from onprem_llm.checks.network_words import ports_text
from onprem_llm.findings import Finding

EXPECTED = "hosts reach each other at the ports of gangs (onprem_llm_site.gang_ports) and at those that NCCL asks for"
REMEDY = (
    "Let hosts reach each other there. ufw: `ufw allow proto tcp from {address}` on {target}; firewalld: `firewall-cmd "
    "--permanent --zone trusted --add-source {address}`, then --reload; else the firewall between them. Which way: "
    "`no answer` is dropped, `refused` and others were turned down."
)


def ports(network: Network) -> Iterator[Finding]:
    """Yield the ports that are shut, at the host where they are; once where nobody reaches them."""
    bad = [link for link in network.links if link.blocked]
    alike: dict[tuple[tuple[int, str], ...], list[Link]] = {}
    for link in bad:
        alike.setdefault(link.blocked, []).append(link)
    for links in alike.values():
        for side in sides(links, [link for link in network.links if link.tried]):
            link = side.links[0]
            where = f"{side.whole}: {link.target}" if side.whole else f"from {link.source} to {link.target}"
            host = side.host if side.whole else link.target
            found = f"{where}: {_words(link, network.ports)}"
            remedy = REMEDY.format(address=_address(network, link.source), target=link.target)
            yield Finding(host, ROLE, "ports", "error", found, EXPECTED, remedy)


def _words(link: Link, span: tuple[int, int] | None) -> str:
    """Say which ports of which kind are shut, and how."""
    parts = []
    for why in dict.fromkeys(why for _, why in link.blocked):
        shut = [port for port, how in link.blocked if how == why]
        own = [port for port in shut if span and span[0] <= port <= span[1]]
        others = [port for port in shut if port not in own]
        parts += [f"{ports_text(own)} of the engine's ports ({why})"] if own else []
        parts += [f"{ports_text(others)} of those that the kernel gives out ({why})"] if others else []
    return f"TCP {'; '.join(parts)}"


def _address(network: Network, host: str) -> str:
    return network.hosts[host].address or host
