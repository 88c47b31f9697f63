"""Gateway hosts that do not answer: who they are, and what may be done with keys meanwhile."""

from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.look import View, failures_text, may_be_gateways
from onprem_llm.output import note
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.ssh import routes


def answering_gateways(current: Current) -> tuple[HostState, ...]:
    """Return the gateway hosts that answered, the recorded one first; the others stand in for it."""
    return current.gateways or tuple(host for host in current.hosts if host.book is not None and host.book.second)


def accept_silence(view: View, connection: Connection) -> None:
    """Let keys be changed without the gateway hosts that do not answer, if that was asked for; say so.

    Raises UnreachableError otherwise. Those take the change from the others before they serve again.
    """
    silent = silent_gateways(view, connection)
    if not silent:
        return
    names = ", ".join(silent)
    if not connection.skip_unreachable:
        raise UnreachableError(
            f"{names}: a gateway that does not answer would not learn of this",
            details=failures_text(view.failures),
            hint="bring it back; or add --skip-unreachable: it then takes the keys from the others before it serves",
        )
    note(f"Left out: {names}. When it is back, it takes the keys from the other gateways before it serves.")


def silent_gateways(view: View, connection: Connection) -> list[str]:
    """Name the silent hosts that may be gateway hosts; where the recorded one is silent, each may be it."""
    silent = list(awaited(view.current))
    if not silent or view.current.gateway is None:
        return silent
    return may_be_gateways(view.current, routes(connection))
