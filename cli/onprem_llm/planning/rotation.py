"""Who gets requests: hosts that are out of rotation, and the steps that drain replicas and bring them back."""

from collections.abc import Sequence
from typing import cast

from onprem_llm.book_state import BookEntry
from onprem_llm.gateway_state import ServerState
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.types import Order, Step
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.serving import Update

# Seconds after which a replica that is put back must be in rotation.
READY_SECONDS = 30


def away(host: str, current: Current) -> bool:
    """Tell whether a host gets no requests. One that is to be removed serves until its replicas are elsewhere."""
    mark = current.marks.get(host)
    return mark is not None and (mark.state != "removed" or mark.was_drained)


def is_down(server: str, current: Current) -> bool:
    """Tell whether a gateway that runs has a replica (deployment/project) for down: it gets no requests there."""
    return any(not found.up for found in _seen(server, current))


def is_down_everywhere(server: str, current: Current) -> bool:
    """As `is_down`, at every gateway that runs and knows the replica: nobody misses it."""
    seen = _seen(server, current)
    return bool(seen) and not any(found.up for found in seen)


def is_up(server: str, current: Current) -> bool:
    """Tell whether a gateway that runs sends requests to a replica: what is known of one on a host out of sight."""
    return any(found.up and found.admin == "ready" for found in _seen(server, current))


def is_held_out(server: str, current: Current) -> bool:
    """Tell whether a gateway that runs was told to send a replica no requests, whether it answers or not."""
    return any(found.admin != "ready" for found in _seen(server, current))


def _seen(server: str, current: Current) -> list[ServerState]:
    states = [host.gateway_state for host in current.gateways if host.gateway_state and host.gateway_state.running]
    return [state.servers[server] for state in states if server in state.servers]


def route_step(
    gateways: Sequence[HostState], title: str, *, drain: Sequence[str] = (), ready: Sequence[str] = (), wait: int = 0
) -> Step | None:
    """Return the step that drains servers or brings them back, at the gateways that run; None where it has no work.

    `wait`: seconds for the streams of those that are drained.
    """
    limit = {"wait": wait} if drain else {"ready_wait": READY_SECONDS}
    order: Order = {"drain": list(drain), "ready": list(ready), **limit}
    hosts = [host.name for host in gateways if host.gateway_state is not None and host.gateway_state.running]
    return Step("route", title, dict.fromkeys(hosts, order)) if hosts and (drain or ready) else None


def back_step(gateways: Sequence[HostState], title: str, servers: Sequence[str]) -> Step | None:
    """Return the undo of a drain. What a gateway had for down before is let in there, and not waited for."""
    step = route_step(gateways, title, ready=servers)
    if step is None:
        return None
    orders = {name: _let_in(host, step.orders[name]) for host in gateways if (name := host.name) in step.orders}
    return Step(step.kind, step.title, orders)


def _let_in(gateway: HostState, order: Order) -> Order:
    known = gateway.gateway_state.servers if gateway.gateway_state else {}
    servers = cast("list[str]", order["ready"])
    down = [server for server in servers if server in known and not known[server].up]
    ready = [server for server in servers if server not in down]
    return {**order, "ready": ready, "let_in": down} if down else order


def drain_timeout(name: str, entry: BookEntry | None) -> int:
    """Return how long the streams of a deployment may go on, as the book has it."""
    if entry is None:
        return Update().drain_timeout
    return parse_deployment(entry.model_yaml, f"the book's {name}").update.drain_timeout
