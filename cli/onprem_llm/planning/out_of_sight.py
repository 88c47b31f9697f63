"""Hosts that a plan does not see, silent or left out by a limit: what they share with the others is kept for them."""

from collections.abc import Iterable, Mapping

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.recorded import GONE


def awaited(current: Current) -> tuple[str, ...]:
    """Name the hosts that are not seen and were not declared gone: they come back as they were."""
    gone = {name for name, mark in current.marks.items() if mark.state in GONE}
    return tuple(name for name in current.unreachable if name not in gone)


def unseen_because(current: Current, host: str) -> str:
    """Say of a host why it was not seen."""
    return "--limit leaves out" if host in current.left_out else "did not answer"


def refuse_unreached(current: Current, name: str, replicas: Mapping[str, str]) -> None:
    """Raise where a change of a deployment reaches none of its replicas (project -> host)."""
    out = [f"{project} on {host}" for project, host in replicas.items() if host in current.left_out]
    if out:
        raise InvalidError(
            f"--limit leaves out the replicas of {name}: {', '.join(out)}",
            hint="leave --limit out, or name their hosts in it",
        )
    where = ", ".join(f"{project} on {host}" for project, host in replicas.items())
    raise UnreachableError(
        f"all replicas of {name} are on hosts that did not answer: {where}",
        hint="bring them back and run this again, or declare a host lost: onprem-llm host remove HOST --lost",
    )


def refuse_half_seen(current: Current, name: str) -> None:
    """Raise where a change was cut off and a limit hides which revision some replicas run: one of the two would end."""
    entry = current.book.get(name)
    if entry is None or not entry.pending:
        return
    out = [
        f"{project} on {host}"
        for project, at in sorted(entry.replicas.items())
        for host in at.hosts
        if host in current.left_out
    ]
    if out:
        begun = ", ".join(str(number) for number in entry.pending)
        raise InvalidError(
            f"a change of {name} to revision {begun} was cut off, and --limit leaves out replicas that may run it: "
            f"{', '.join(out)}",
            hint="run it without --limit, so that all of them come to one revision",
        )


def unseen_gateways(current: Current) -> tuple[str, ...]:
    """Return the addresses of gateway hosts that are not seen, as the others know them.

    A gateway tells with whom it compares keys; where none stands, the engines' hosts tell whom they let in.
    """
    states = [host.gateway_state for host in current.gateways if host.gateway_state is not None]
    known = [peer for state in states for peer in state.peers]
    if not states:
        known = [source for host in current.hosts if host.firewall for source in host.firewall.sources]
    return _unseen(current, known)


def gateway_peers(current: Current, host: HostState) -> tuple[str, ...]:
    """Return the other gateways' addresses, in the order in which this one has them: another order is another file."""
    others = [other.cluster_address for other in current.gateways if other is not host]
    missing = unseen_gateways(current)
    if not missing:
        return tuple(others)
    standing = host.gateway_state.peers if host.gateway_state else ()
    wanted = {*others, *missing} - {host.cluster_address}
    return (*(peer for peer in standing if peer in wanted), *sorted(wanted - set(standing)))


def engine_sources(current: Current, host: HostState) -> list[str]:
    """Return who may reach the engines of a host: its gateways, and those it lets in that may come back."""
    standing = host.firewall.sources if host.firewall else ()
    seen = {one.cluster_address for one in current.gateways}
    return sorted({*seen, *unseen_gateways(current), *_unseen(current, standing)})


def still_let_in(current: Current, addresses: Iterable[str]) -> tuple[str, ...]:
    """Return those of the addresses that a rule lets in whose hosts are not seen now, and may come back."""
    return _unseen(current, addresses)


def _unseen(current: Current, addresses: Iterable[str]) -> tuple[str, ...]:
    """Leave out the addresses of hosts that answered: what those are is known."""
    if not awaited(current):
        return ()
    seen = {address for host in current.hosts for address in (host.cluster_address, *host.addresses)}
    return tuple(sorted(set(addresses) - seen))
