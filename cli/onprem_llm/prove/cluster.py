"""The site's Ray cluster in a rehearsal: whether it has one, and whether its nodes joined. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from onprem_llm.errors import OnpremError
from onprem_llm.json_values import is_mapping
from onprem_llm.planning.ray_hosts import HEAD_GROUP
from onprem_llm.spec.lock import Lock
from onprem_llm.spec.site import PREFIX

PHASE = "cluster up"
ELSEWHERE = "somebody else runs the site's Ray cluster (ray.address), and a rehearsal does not reach it"
NO_HEAD = f"the inventory's group {HEAD_GROUP} has no host"


def has_cluster(given: Iterable[Mapping[str, Any]], lock: Lock) -> bool:
    """Tell whether the site's settings name one; what the lock has of it may be what a changed inventory lacks now."""
    settings = (variables.get(PREFIX) for variables in given)
    return "ray" in lock.site or any(is_mapping(one) and bool(one.get("ray")) for one in settings)


def elsewhere(settings: object) -> bool:
    """Tell whether the site's settings name a cluster that somebody else runs."""
    ray = settings.get("ray") if is_mapping(settings) else None
    return is_mapping(ray) and bool(ray.get("address"))


def has_head(groups: Mapping[str, Iterable[str]]) -> bool:
    """Tell whether the inventory says where it is to be; `groups` is host → its groups."""
    return any(HEAD_GROUP in names for names in groups.values())


def joined(report: Mapping[str, Any]) -> dict[str, str]:
    """Return host → what Ray says of its node, from a report of `cluster status`; OnpremError unless all are alive."""
    nodes = {str(node["host"]): f"{node['role']}, {node['ray'] or 'not in the cluster'}" for node in report["nodes"]}
    absent = [text for text, node in zip(nodes.values(), report["nodes"], strict=True) if node["ray"] != "ALIVE"]
    if absent or not nodes:
        raise OnpremError(
            f"not all nodes are in the Ray cluster: {'; '.join(f'{host}: {text}' for host, text in nodes.items())}",
            details=report.get("error"),
        )
    return nodes
