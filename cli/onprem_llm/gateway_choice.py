"""Which host is the gateway: the recorded one, or the one to record where no other can be it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.connection import Connection
from onprem_llm.hosts import Current
from onprem_llm.look import GATEWAY_GROUP, look
from onprem_llm.output import Progress
from onprem_llm.ssh import routes


@dataclass(frozen=True)
class GatewayChoice:
    """The gateway, whether it is still to be recorded, and where there is none: why, and what to do."""

    name: str | None
    records: bool = False
    note: str | None = None
    seconds: tuple[str, ...] = ()
    """The others of the group `gateway`: they share its address and hold a copy of its book."""


def choose_gateway(current: Current, connection: Connection, progress: Progress) -> GatewayChoice:
    """Return the gateway: a recorded one stays, whatever the inventory's order.

    Otherwise the first host of the group `gateway`, else of the inventory, if every host of the inventory answers that
    it is not the recorded one: a second gateway would be a second book. A limit is looked beyond for that.
    """
    recorded = current.gateway
    if recorded is not None:
        return GatewayChoice(recorded.name, seconds=second_choices(recorded.name, current))
    ways = routes(replace(connection, limit=None))
    candidate = first_choice({host: way.groups for host, way in ways.items()})
    whole = current
    if connection.limit and set(ways) - {host.name for host in current.hosts} - set(current.unreachable):
        whole = look(replace(connection, limit=None), progress).current
        if whole.gateway is not None:
            return GatewayChoice(whole.gateway.name, seconds=second_choices(whole.gateway.name, current))
    if candidate is None or current.host(candidate) is None:
        return GatewayChoice(
            None, note=f"No gateway is recorded: it would be {candidate}, which is not among the hosts that answered."
        )
    note = _doubt(candidate, list(ways), whole)
    if note:
        return GatewayChoice(None, note=note)
    return GatewayChoice(candidate, records=True, seconds=second_choices(candidate, current))


def _doubt(candidate: str, names: Sequence[str], whole: Current) -> str | None:
    """Say why the candidate may not be recorded now; None where nobody else can be the gateway."""
    silent = [name for name in names if whole.host(name) is None]
    if silent:
        return (
            f"No gateway is recorded: {', '.join(silent)} did not answer and may be it. Bring it back and run "
            "bootstrap again; if it never was the gateway and stays away, take it out of the inventory."
        )
    keeper = next((host.name for host in whole.hosts if host.book is not None and host.name != candidate), None)
    if keeper:
        return (
            f"No gateway is recorded: {keeper} has a book, so it is not {candidate}'s turn. If {keeper} is the "
            f"gateway, put it into the group gateway and bootstrap again; if not, move its /var/lib/onprem-llm away."
        )
    return None


def first_choice(groups: Mapping[str, Sequence[str]]) -> str | None:
    """Return the first host of the group `gateway`, else the first of all; `groups` is in the inventory's order."""
    members = [host for host, its in groups.items() if GATEWAY_GROUP in its]
    return next(iter(members or groups), None)


def second_choices(first: str, current: Current) -> tuple[str, ...]:
    """Return the hosts that run a gateway beside the first: the group's, and those that once were recorded."""
    return tuple(
        host.name
        for host in current.hosts
        if host.name != first and (GATEWAY_GROUP in host.groups or (host.book is not None and host.book.second))
    )
