"""A host out of rotation and back: what the book and the hosts say now, made into a plan."""

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.look import View, gateway_of, look_whole
from onprem_llm.planning.hosts_change import plan_drain, plan_undrain
from onprem_llm.planning.types import Plan
from onprem_llm.wanted import load_site, wanted_as_is


def plan_rotation(
    host: str, connection: Connection, *, back: bool, view: View | None = None, purpose: str = ""
) -> Plan:
    """Look at the hosts, unless it has just been done, and plan to drain a host or to let it in again.

    `purpose`: what a command drains it for, which lets it in itself; empty for a person's word.
    """
    if view is None:
        with output.glimpse() as progress:
            view = look_whole(connection, progress)
    gateway, site = gateway_of(view), load_site(view.current, connection.inventory)
    wanted = wanted_as_is(site, connection.inventory, view.current)
    if back:
        return plan_undrain(site, wanted, view.current, gateway, host)
    return plan_drain(site, wanted, view.current, gateway, host, purpose)
