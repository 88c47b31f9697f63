"""A host's node of the Ray cluster around its turn to another driver: it leaves first, and joins again afterwards."""

from onprem_llm.apply import apply, carry
from onprem_llm.clusters import up_plan
from onprem_llm.connection import Connection
from onprem_llm.hosts import Current
from onprem_llm.look import gateway_of, look_whole
from onprem_llm.output import Progress
from onprem_llm.planning.ray_hosts import WORKER_GROUP, standing_head
from onprem_llm.planning.ray_leaving import plan_drain
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.wanted import load_site

# Seconds that replicas may take to start elsewhere, as `cluster drain` gives them.
SECONDS = 900


def has_worker(current: Current, host: str) -> bool:
    """Tell whether a host has a worker of the cluster."""
    state = current.host(host)
    return state is not None and WORKER_PROJECT in state.projects


def check_joins(host: str, connection: Connection, progress: Progress) -> None:
    """Raise OnpremError where a host that leaves could not join again, such as into a cluster that is to be changed."""
    up_plan(connection, progress, only=host)


def leave(host: str, connection: Connection, progress: Progress) -> None:
    """Drain a host's worker and take it away, for a caller that holds the lock. OnpremError while replicas stay."""
    view = look_whole(connection, progress, again=True)
    site = load_site(view.current, connection.inventory)
    carry(plan_drain(site, view.current, gateway_of(view), host, SECONDS), connection, progress)


def lacks_worker(current: Current, host: str) -> bool:
    """Tell whether the inventory has a host for a worker of the cluster that stands, and it has none."""
    state = current.host(host)
    wanted = state is not None and WORKER_GROUP in state.groups and HEAD_PROJECT not in state.projects
    return wanted and not has_worker(current, host) and standing_head(current) is not None


def join(host: str, connection: Connection, progress: Progress) -> None:
    """Start a host's worker."""
    apply(up_plan(connection, progress, only=host).plan, connection, progress)
