"""A deployment on Ray as the gateway knows it: a server for each node of the cluster."""

from onprem_llm.hosts import Current
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.planning.ray_hosts import asked_host
from onprem_llm.planning.ray_nodes_standing import node_address, node_of
from onprem_llm.rendering.haproxy import Backend, Server
from onprem_llm.rendering.ray_serve import route_prefix
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.site import Site

# What servers are called: ray-10-0-0-3. No replica can have such a name: it ends in its own number alone.
SERVER = "ray-"


def ray_backend(site: Site, deployment: Deployment, current: Current) -> Backend:
    """Return what the gateway knows of it: nodes whatever runs there, since Ray moves replicas by itself."""
    asked = asked_host(current)
    serve = asked.serve if asked else None
    if serve is not None and serve.elsewhere is not None:
        found = list(serve.elsewhere.nodes) or list(_known(deployment.name, current).values())
    else:
        found = [node_address(host) for host in current.hosts if node_of(host) is not None]
    servers = {server_name(at): at for at in found}
    servers |= {name: at for name, at in _silent(deployment.name, current).items() if name not in servers}
    return Backend(
        deployment=deployment.name,
        served_name=deployment.served_name,
        task=deployment.task,
        routing=deployment.routing,
        admits=(),
        servers=tuple(Server(name, at, site.ray.serve_port) for name, at in sorted(servers.items())),
        prefix=route_prefix(deployment.name),
    )


def known_nodes(deployment: str, current: Current) -> list[str]:
    """Return the servers that the gateways have for a deployment on Ray: deployment/node."""
    states = [host.gateway_state for host in current.gateways if host.gateway_state is not None]
    return sorted({name for state in states for name in state.servers if name.startswith(f"{deployment}/{SERVER}")})


def server_name(address: str) -> str:
    """Return what the gateway calls a node."""
    return SERVER + address.replace(".", "-").replace(":", "-")


def _silent(deployment: str, current: Current) -> dict[str, str]:
    """Return the nodes that a gateway knows and whose hosts are not seen now: they may be back any moment."""
    if not awaited(current):
        return {}
    seen = {address for host in current.hosts for address in (host.cluster_address, *host.addresses)}
    return {name: at for name, at in _known(deployment, current).items() if at not in seen}


def _known(deployment: str, current: Current) -> dict[str, str]:
    """Return the nodes that the gateways have for it: server -> address."""
    states = [host.gateway_state for host in current.gateways if host.gateway_state is not None]
    return {
        name.partition("/")[2]: server.address
        for state in states
        for name, server in state.servers.items()
        if name.startswith(f"{deployment}/{SERVER}")
    }
