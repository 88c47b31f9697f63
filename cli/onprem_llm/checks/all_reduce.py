"""Which hosts add up one tensor together, in which image, and what is made of their answers. Pure.

One GPU a host takes part: within a host GPUs reach each other otherwise, and between hosts the lines are what counts.
"""

from collections.abc import Mapping, Sequence

from onprem_llm.checks.network import Network
from onprem_llm.checks.network_sides import ROLE
from onprem_llm.checks.network_words import rate_text, time_text
from onprem_llm.findings import Finding, names
from onprem_llm.probe_values import mapping, text

CHECK = "all_reduce"
BYTES = 64 * 1024 * 1024
SLOW = 0.5  # of what iperf3 had on the slowest line between them
EXPECTED = "torch adds up over the hosts, and right"
BROKEN = (
    "Look at `ports` and `mtu` above first, then at image and driver on the host that is named (engine_image); "
    "NCCL says more with NCCL_DEBUG=INFO in model.yaml's env."
)
SOCKETS = (
    "NCCL does not get what the line gives: see over what it went, and which interface it took (NCCL_SOCKET_IFNAME, "
    "NCCL_IB_HCA); where there is InfiniBand or RoCE, /dev/infiniband must be on each host."
)
WRONG = "Take these hosts' GPUs and network cards out one after another until it is right, and have that one replaced."
Document = Mapping[str, object]


def parts(trials: Mapping[str, Sequence[Document]], network: Network) -> tuple[dict[str, Document], list[Finding]]:
    """Return host -> {trial, part} of those that take part, or a finding that says why nobody does.

    `trials`: what checks/trial.py would try on each host. Hosts with the same image take part, most of them at best.
    """
    by_image: dict[str, list[str]] = {}
    for host, wanted in trials.items():
        if wanted:
            by_image.setdefault(text(wanted[0], "image") or "", []).append(host)
    together = max(by_image.values(), key=len, default=[])
    if not by_image:
        return {}, []
    if len(together) < 2:
        return {}, [_note(together[0], "no two hosts have GPUs and the same image for them")]
    first, hindered = together[0], _hindered(together, network)
    if hindered:
        return {}, [_note(first, hindered)]
    port = _port(first, together[1], network)
    if port is None:
        return {}, [_note(first, f"no port of onprem_llm_site.gang_ports is free on {first}")]
    found: dict[str, Document] = {}
    for rank, host in enumerate(together):
        other = together[1] if rank == 0 else first
        part = {"rank": rank, "world": len(together), "address": network.hosts[first].address, "port": port,
                "interface": network.line[host, other].device, "bytes": BYTES}  # fmt: skip
        found[host] = {"trial": one_card(trials[host][0]), "part": part}
    return found, []


def one_card(trial: Document) -> Document:
    """Return a trial with its first GPU alone; one without names of GPUs has all of them, as before."""
    devices = trial.get("devices")
    return {**trial, "devices": list(devices)[:1] if isinstance(devices, list | tuple) else []}


def _hindered(hosts: Sequence[str], network: Network) -> str | None:
    """Say what would make it hang: a line that was not measured, or ports that are shut."""
    for host in hosts:
        for other in hosts:
            link = network.line.get((host, other))
            if host != other and (link is None or link.blocked):
                return f"{host} does not reach all that it needs on {other}, see ports and network"
    return None


def _port(first: str, other: str, network: Network) -> int | None:
    low, high = network.ports or (0, -1)
    return next((port for port in network.line[other, first].tried if low <= port <= high), None)


def _note(host: str, why: str) -> Finding:
    return Finding(host, ROLE, CHECK, "ok", f"not tried: {why}", EXPECTED, "")


def judged(answers: Mapping[str, Document], network: Network) -> list[Finding]:
    """Return one finding of all hosts that took part, at the one where to look first."""
    hosts = list(answers)
    who = f"{len(hosts)} hosts ({names(hosts)}), one GPU each"
    failed = {host: text(one, "error") for host, one in answers.items() if text(one, "error")}
    if failed:
        # Where one fails the others wait for it in vain: its own word comes before theirs.
        host = min(failed, key=lambda one: ("no answer" in (failed[one] or ""), hosts.index(one)))
        return [_finding(host, "error", f"{who}: {host}: {failed[host]}", EXPECTED, BROKEN)]
    wrong = [host for host, one in answers.items() if one.get("right") is not True]
    if wrong:
        return [_finding(wrong[0], "error", f"{who}: the sum is wrong on {names(wrong)}", EXPECTED, WRONG)]
    first = mapping(answers[hosts[0]])
    seconds = max(value for one in answers.values() if isinstance(value := one.get("seconds"), float))
    # As nccl-tests counts it: what each line carries, whatever the number of hosts.
    rate = BYTES * 8 * 2 * (len(hosts) - 1) / len(hosts) / seconds
    over = f" over {first.get('network')}" if first.get("network") else ""
    version = f", NCCL {first.get('nccl')}" if first.get("nccl") else ""
    found = f"{who}: {rate_text(rate)} ({first.get('backend')}{over}{version}), {time_text(seconds)} for 64 MiB"
    lines = [link.rate for link in network.links if {link.source, link.target} <= set(hosts) and link.rate]
    least = min(lines, default=None)
    expected = f"{rate_text(SLOW * least)} or more: half of the slowest line between them" if least else EXPECTED
    if least and rate < SLOW * least:
        return [_finding(hosts[0], "warning", found, expected, SOCKETS)]
    return [_finding(hosts[0], "ok", found, expected, "")]


def _finding(host: str, level: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding(host, ROLE, CHECK, level, found, expected, remedy)
