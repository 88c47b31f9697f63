"""Whom the nodes of the Ray cluster let reach Ray Serve: the gateways that there are now."""

from collections.abc import Mapping

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.out_of_sight import engine_sources
from onprem_llm.planning.ray_nodes_standing import Cluster
from onprem_llm.planning.replica_orders import empty_order
from onprem_llm.planning.types import Change, Order, Step
from onprem_llm.spec.site import Site


def closed_nodes(site: Site, current: Current, cluster: Cluster, *, refused: bool = True) -> dict[str, Order]:
    """Return host -> the rules with which all gateways reach Ray Serve there; hosts where it is so are left out.

    InvalidError for a node without any rules: who else may reach what there, `cluster up` knows. Left out, too, unless
    they are to be `refused`.
    """
    port, gateways = str(site.ray.serve_port), {one.cluster_address for one in current.gateways}
    found: dict[str, Order] = {}
    for host in cluster.nodes:
        wall = host.ray_firewall
        if wall is None or not wall.active:
            if not refused:
                continue
            raise InvalidError(
                f"{host.name}: the rules that guard Ray's ports are not in force", hint="onprem-llm cluster up"
            )
        if not gateways <= set(wall.rules.get(port, ())):
            rules = {**wall.rules, port: engine_sources(current, host)}
            found[host.name] = {"rules": [{"ports": name, "sources": list(who)} for name, who in rules.items()]}
    return found


def walls_step(walls: Mapping[str, Order], gateway: HostState) -> Step | None:
    """Return the step that lets the gateways in; None where they are."""
    orders = {host: {**empty_order([], gateway), "ray_firewall": wall} for host, wall in walls.items()}
    return Step("apply", "Let the gateways reach Ray Serve", orders) if orders else None


def wall_changes(walls: Mapping[str, Order]) -> list[Change]:
    """Say on which hosts."""
    return [Change(host, "firewall of Ray", "update", ("which gateways reach Ray Serve there",)) for host in walls]
