"""Steps on the nodes of the Ray cluster: Ray is asked, a worker is drained, projects go."""

from collections.abc import Sequence

from onprem_llm.hosts import HostState
from onprem_llm.planning.ray_hosts import PROJECTS
from onprem_llm.planning.ray_nodes import KEY
from onprem_llm.planning.removal import removal
from onprem_llm.planning.types import Order, Step
from onprem_llm.rendering.ray_node import DASHBOARD, GCS, SERVICE, START_SECONDS, WORKER_PROJECT
from onprem_llm.spec.site import Site

NAME = "Ray cluster"


def ask_order(
    site: Site, head: HostState, nodes: Sequence[str], timeout: int = START_SECONDS, applications: Sequence[str] = ()
) -> dict[str, object]:
    """Return an order of ray_nodes.yml or ray_drain.yml for the head's host; `nodes` are addresses.

    `applications`: those of Ray Serve's that have to be RUNNING, too.
    """
    return {
        "nodes": list(nodes),
        "address": f"{head.cluster_address}:{site.ray.ports.first + GCS}",
        "dashboard_port": site.ray.ports.first + DASHBOARD,
        "token": KEY,
        "timeout": timeout,
        **({"applications": list(applications)} if applications else {}),
    }


def drain_step(site: Site, head: HostState, host: HostState, timeout: int) -> Step:
    """Return the step after which nothing serves on a worker, which ends then and stays away."""
    container = f"{WORKER_PROJECT}-{SERVICE}-1"
    # Where it is now: what is rendered for it may say another address.
    address = host.projects[WORKER_PROJECT].label("address") or host.cluster_address
    # One that was not emptied goes on serving: it has to outlive its head, and a reboot of its host.
    back = Step("ray_drain", f"Have {host.name} come back after a restart", {host.name: {"stays": container}})
    orders: dict[str, Order] = {host.name: {"leaves": container}, head.name: ask_order(site, head, [address], timeout)}
    return Step("ray_drain", f"Drain {host.name}", orders, (back,))


def gone(site: Site, projects: Sequence[str], *, keeps_token: bool = False) -> Order:
    """Return an order of remove.yml: nodes, what guards them and the token."""
    # The folder has nothing but what was rendered, and the head's store.
    return {
        **removal(site, projects, purge=True),
        "keys": [] if keeps_token else [KEY],
        "ray_firewall": {"rules": [], "state": "absent"},
    }


def runs(host: HostState) -> bool:
    """Tell whether a node of Ray runs on a host."""
    return any(c.state == "running" for p in PROJECTS if p in host.projects for c in host.projects[p].containers)
