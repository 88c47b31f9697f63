"""Whether the nodes of the Ray cluster have room: for the fewest replicas that are asked for, and for one more.

Ray places; this says beforehand what would wait for ever. Where replicas of others are now it does not know, so each
deployment counts with its fewest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError
from onprem_llm.planning.ray_nodes_standing import Cluster, node_gpus
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.engine_args import parallel_size


@dataclass(frozen=True, slots=True)
class Room:
    """What is left on each host, GPUs and CPUs by the host's name. One CPU is for what passes requests on."""

    gpus: dict[str, int]
    cpus: dict[str, int]

    def of(self, deployment: Deployment) -> dict[str, int]:
        """Return what a deployment takes of."""
        return self.cpus if deployment.resources.gpus == 0 else self.gpus


def room_of(cluster: Cluster) -> Room:
    """Return the room of an empty cluster."""
    return Room(
        {host.name: node_gpus(host) for host in cluster.carriers},
        {host.name: max(0, (host.cpus or 0) - 1) for host in cluster.carriers},
    )


def place(room: Room, deployment: Deployment, largest: int, count: int) -> int:
    """Take room for so many replicas; return for how many there was any. `largest`: GPUs that one host gives."""
    size, free = parallel_size(deployment.engine.engine_args), room.of(deployment)
    spreads = deployment.resources.gpus != 0 and size > largest
    for done in range(count):
        hosts = sorted((name for name in free if free[name] >= size), key=lambda name: (free[name], name))
        if hosts:
            free[hosts[0]] -= size
        elif spreads and sum(free.values()) >= size:
            _spread(free, size)
        else:
            return done
    return count


def _spread(free: dict[str, int], size: int) -> None:
    for name in sorted(free, key=lambda one: (-free[one], one)):
        taken = min(size, free[name])
        free[name] -= taken
        size -= taken


def room_beside(cluster: Cluster, deployments: Iterable[Deployment]) -> Room:
    """Return what is left once each deployment has its fewest replicas, the largest first."""
    room = room_of(cluster)
    for one in sorted(deployments, key=lambda d: (-parallel_size(d.engine.engine_args), d.name)):
        place(room, one, cluster.most_gpus, one.replica_count)
    return room


def check_room(cluster: Cluster, deployment: Deployment, others: Sequence[Deployment]) -> None:
    """Raise InvalidError, with what each host has, where the fewest replicas find no room beside those of others."""
    room = room_beside(cluster, others)
    left = {name: dict(free) for name, free in (("gpus", room.gpus), ("cpus", room.cpus))}
    if place(room, deployment, cluster.most_gpus, deployment.replica_count) == deployment.replica_count:
        return
    size = parallel_size(deployment.engine.engine_args)
    kind, unit = ("cpus", "CPU") if deployment.resources.gpus == 0 else ("gpus", "GPU")
    raise InvalidError(
        f"{deployment.name}: the Ray cluster has no room for {_count(deployment.replica_count, 'replica')} of "
        f"{_count(size, unit)} each",
        details="\n".join(
            _line(host.name, host.cpus or 0, node_gpus(host), left[kind], kind) for host in cluster.carriers
        ),
        hint="ask for fewer replicas, or smaller parallel sizes; or add a host: write it into the inventory's group "
        "ray_worker, then onprem-llm cluster add HOST",
    )


def _line(name: str, cpus: int, gpus: int, left: Mapping[str, int], kind: str) -> str:
    if kind == "gpus":
        return f"{name}: {_count(gpus, 'GPU')}, {left[name]} left beside the fewest replicas of other deployments"
    return (
        f"{name}: {_count(cpus, 'CPU')}, {left[name]} left beside the fewest replicas of other deployments "
        "(one is for what passes requests on)"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
