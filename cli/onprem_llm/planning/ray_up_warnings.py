"""What a person should know before the Ray cluster is brought up or changed."""

from collections.abc import Sequence

from onprem_llm.hosts import Current
from onprem_llm.planning.ray_book import on_ray
from onprem_llm.planning.ray_hosts import RayHosts, standing_head, strays
from onprem_llm.planning.ray_nodes import PlannedNode
from onprem_llm.planning.ray_rolling import Rolled
from onprem_llm.rendering.ray_node import WORKER_PROJECT


def up_warnings(
    image: str,
    current: Current,
    hosts: RayHosts,
    rolled: Rolled,
    nodes: Sequence[PlannedNode],
    parked: Sequence[str],
) -> list[str]:
    """Return what ends, what is forgotten, what new nodes lack, and which nodes are not as the inventory says.

    `image`: what the nodes are to run. `nodes`: the head's first. `parked`: drained hosts, which get none.
    """
    return [
        *_ending(rolled, current),
        *rolled.warnings,
        *_other_images(image, current),
        *_without_weights(current, nodes[1:]),
        *_unknown_to_gateways(current, nodes),
        *(f"{name} is drained and gets no node: onprem-llm host undrain {name}" for name in parked),
        *_strays(current, hosts),
    ]


def _ending(rolled: Rolled, current: Current) -> list[str]:
    lines = [f"{rolled.ends}: all nodes stop together, and what they serve ends"] if rolled.ends else []
    if rolled.forgets:
        known, head = list(on_ray(current)), standing_head(current)
        again = f": it is told of {', '.join(known)} again at the end, which start then" if known else ""
        lines.append(f"Ray forgets its applications{again}")
        there = head.serve.applications if head is not None and head.serve is not None else {}
        strangers = sorted(set(there) - set(known))
        lines += [f"{', '.join(strangers)} on Ray: the book does not have it, and it is gone then"] if strangers else []
    return lines


def _other_images(image: str, current: Current) -> list[str]:
    """Say which deployments will run with another image than their revisions did."""
    return [
        f"{name} was deployed with engine.image: {deployment.engine.image} and will run with {image}: once it serves, "
        f"write that into its model.yaml and deploy it, so that the book has it; until then scale refuses"
        for name, (deployment, _) in on_ray(current).items()
        if deployment.engine.image != image
    ]


def _unknown_to_gateways(current: Current, nodes: Sequence[PlannedNode]) -> list[str]:
    """Say which new nodes no gateway asks before the next deploy, which renders its servers."""
    new = [one.host.name for one in nodes if one.outcome.change.action == "create"]
    known = list(on_ray(current))
    if not new or not known:
        return []
    return [f"{', '.join(new)}: the gateways send requests there once {', '.join(known)} is deployed again"]


def _without_weights(current: Current, workers: Sequence[PlannedNode]) -> list[str]:
    """Say which new workers could start no replica: sums of weights, to bring them, are not in the book."""
    new = [one.host for one in workers if one.outcome.change.action == "create"]
    book = on_ray(current).items()
    lacking = {name: [host.name for host in new if weights not in host.weights] for name, (_, weights) in book}
    return [
        f"{', '.join(hosts)}: the weights of {name} are not there, and a replica would not start: deploy {name} again"
        for name, hosts in lacking.items()
        if hosts
    ]


def _strays(current: Current, hosts: RayHosts) -> list[str]:
    return [
        f"{host.name} runs {project}, and the inventory's groups of Ray do not have it: "
        + (f"onprem-llm cluster drain {host.name}" if project == WORKER_PROJECT else "onprem-llm cluster down")
        for host, project in strays(current, hosts)
    ]
