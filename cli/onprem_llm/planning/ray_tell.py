"""The step that tells Ray Serve its document, and the way back."""

import math
from collections.abc import Sequence

from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import LOOPBACK, Claim
from onprem_llm.planning.ray_at_address import Digests, order_at_address
from onprem_llm.planning.ray_book import BEFORE, PROJECT
from onprem_llm.planning.ray_deploy import PlannedServe
from onprem_llm.planning.ray_nodes import KEY
from onprem_llm.planning.ray_nodes_standing import Cluster
from onprem_llm.planning.replica_orders import readiness
from onprem_llm.planning.types import Order, Step
from onprem_llm.rendering.ray_node import DASHBOARD
from onprem_llm.rendering.ray_serve import route_prefix, surge
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.site import Site


def serve_step(site: Site, planned: PlannedServe, deployment: Deployment, *, known: bool) -> Step | None:
    """Return the step that tells Serve, waits until the deployment serves and asks it; the way back is what it was told
    before. `known`: the book has the deployment. None where Serve has it all.
    """
    if not planned.needed:
        return None
    host, name, timeout = planned.cluster.asked, deployment.name, _seconds(planned, deployment, known=known)
    order = {
        **serve_order(site, planned.cluster, PROJECT, [name], timeout, planned.ours),
        "readiness": _readiness(site, host, deployment),
    }
    # Of a first one, nothing is ours on the way back but what was told from here.
    ours = planned.ours if known else planned.book
    back = serve_order(site, planned.cluster, BEFORE, [name] if known else [], timeout, ours)
    undo = Step(
        "ray_serve",
        f"Tell Ray Serve of {name} as it was" if known else f"Take {name} from Ray Serve",
        {host.name: back if known else {**back, "first": True}},
    )
    return Step(
        "ray_serve", f"Start {name} on Ray" if not known else f"Tell Ray Serve of {name}", {host.name: order}, (undo,)
    )


def _seconds(planned: PlannedServe, deployment: Deployment, *, known: bool) -> int:
    """Return how long Ray may take: for an update as many starts one after another as it needs, each after a drain."""
    if not known:
        return deployment.timeouts.start
    update, replicas = deployment.update, deployment.replicas
    most = replicas if isinstance(replicas, int) else replicas.max
    turns = math.ceil(most / max(1, surge(update, spare=planned.spare) or update.max_unavailable))
    return turns * (deployment.timeouts.start + update.drain_timeout)


def serve_order(
    site: Site, cluster: Cluster, source: str, names: Sequence[str], timeout: int, ours: Digests | None = None
) -> dict[str, object]:
    """Return an order of ray_serve.yml; `names`: those that are waited for. `ours`: all that are, at an address."""
    own = {"dashboard_port": site.ray.ports.first + DASHBOARD, "token": KEY}
    where = order_at_address(site, cluster, ours or {}) if site.ray.address else own
    return {"source": source, "names": list(names), **where, "timeout": timeout}


def _readiness(site: Site, host: HostState, deployment: Deployment) -> Order:
    """Return the request that must be answered before the gateway sends any: at the head, which has a proxy always.

    At an address, which node has one that is reached is found when it is asked.
    """
    claim = Claim(PROJECT, LOOPBACK, site.ray.serve_port)
    asked = readiness(deployment, claim, host, tls=False)
    url = None if site.ray.address else asked["url"]
    return {**asked, "url": url, "path": f"{route_prefix(deployment.name)}{asked['path']}", "key": None}
