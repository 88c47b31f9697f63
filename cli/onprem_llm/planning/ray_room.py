"""Whether the nodes of the Ray cluster have room: for the fewest replicas that are asked for, and for one more.

Ray places; this says beforehand what would wait for ever. Where replicas of others are now it does not know, so each
deployment counts with its fewest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError
from onprem_llm.planning.ray_nodes_standing import Cluster, Place
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.engine_args import parallel_size


@dataclass(frozen=True, slots=True)
class Room:
    """What is left on each node, GPUs and CPUs by its name."""

    gpus: dict[str, int]
    cpus: dict[str, int]

    def of(self, deployment: Deployment) -> dict[str, int]:
        """Return what a deployment takes of."""
        return self.cpus if deployment.resources.gpus == 0 else self.gpus


def room_of(cluster: Cluster) -> Room:
    """Return the room of an empty cluster."""
    return Room(
        {place.name: place.gpus for place in cluster.carriers},
        {place.name: max(0, place.cpus - place.reserved) for place in cluster.carriers},
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
        details="\n".join(_line(place, left[kind], kind) for place in cluster.carriers),
        hint=f"ask for fewer replicas, or smaller parallel sizes; or {cluster.another_node}",
    )


def _line(place: Place, left: Mapping[str, int], kind: str) -> str:
    count = _count(place.gpus, "GPU") if kind == "gpus" else _count(place.cpus, "CPU")
    passing = " (one is for what passes requests on)" if kind == "cpus" and place.reserved else ""
    return f"{place.name}: {count}, {left[place.name]} left beside the fewest replicas of other deployments{passing}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
