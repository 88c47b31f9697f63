"""The Ray cluster as it stands: its head, and the nodes on which replicas may run."""

from dataclasses import dataclass

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Container, Current, HostState, Project
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.planning.ray_hosts import PROJECTS, WORKER_GROUP, standing_head
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WEIGHTS
from onprem_llm.serve_state import Elsewhere


@dataclass(frozen=True, slots=True)
class Place:
    """A node on which replicas may run. `reserved`: CPUs of it that are for what passes requests on."""

    name: str
    cpus: int
    gpus: int
    reserved: int = 1


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster as far as it answered. `silent`: hosts that did not.

    `asked`: the host on which Ray is asked and told, the head's; for a cluster that somebody else runs the gateway's.
    `nodes`: hosts of ours with a node, the head's too. `carriers`: replicas may run there, `places`: once they run.
    `holders`: hosts that get the weights, which its nodes see in the folder `weights`.
    """

    asked: HostState
    nodes: tuple[HostState, ...]
    carriers: tuple[Place, ...]
    places: tuple[Place, ...]
    holders: tuple[HostState, ...]
    silent: tuple[str, ...] = ()
    weights: str = WEIGHTS

    @property
    def elsewhere(self) -> Elsewhere | None:
        """What is known of the cluster where somebody else runs it."""
        return self.asked.serve.elsewhere if self.asked.serve else None

    @property
    def another_node(self) -> str:
        """How there comes to be more room, for a person."""
        if self.elsewhere:
            return "have who runs the cluster add a node"
        return "add a host: write it into the inventory's group ray_worker, then onprem-llm cluster add HOST"

    @property
    def most_gpus(self) -> int:
        """GPUs of the node that has the most. One that is stopped counts: what follows from this is told to Ray in
        `args`, and other ones replace every replica.
        """
        return max((place.gpus for place in self.places), default=0)


def standing_cluster(current: Current) -> Cluster:
    """Return the cluster; InvalidError where none stands or nothing carries replicas, UnreachableError where the head
    may be on a host that is silent.
    """
    head, silent = standing_head(current), awaited(current)
    if current.left_out and (head is None or not as_it_stands(current, head).carriers):
        raise InvalidError(
            f"--limit leaves out the Ray cluster's {'head' if head is None else 'workers'}",
            hint="leave --limit out: Ray moves replicas among all of its hosts",
        )
    if head is None and silent:
        raise UnreachableError(
            f"no host that answered has the head of the Ray cluster; these did not answer: {', '.join(silent)}",
            hint="bring them back and run this again",
        )
    if head is None:
        raise InvalidError(
            "backend: found ray, and no Ray cluster stands on these hosts",
            hint="onprem-llm cluster up brings it up; docs/multi-node.md",
        )
    if not runs(head):
        raise InvalidError(
            f"the head of the Ray cluster on {head.name} does not run", hint="onprem-llm cluster up starts it"
        )
    cluster = as_it_stands(current, head)
    if not cluster.carriers:
        where = ", ".join(host.name for host in cluster.nodes if host is not head) or "none stands"
        raise InvalidError(
            f"no worker of the Ray cluster answers: {where}", hint="onprem-llm cluster up; onprem-llm cluster status"
        )
    return cluster


def as_it_stands(current: Current, head: HostState) -> Cluster:
    """Return the cluster of a head, whatever runs."""
    nodes = tuple(host for host in current.hosts if node_of(host) is not None)
    carriers = tuple(host for host in nodes if runs(host) and (host is not head or WORKER_GROUP in head.groups))
    return cluster_of(head, nodes, carriers, awaited(current))


def cluster_of(
    head: HostState, nodes: tuple[HostState, ...], carriers: tuple[HostState, ...], silent: tuple[str, ...]
) -> Cluster:
    """Return the cluster of these hosts; replicas may run on `carriers`, whose nodes run."""
    places = tuple(_place(host) for host in nodes if host is not head or WORKER_GROUP in host.groups)
    return Cluster(head, nodes, tuple(map(_place, carriers)), places, carriers, silent)


def _place(host: HostState) -> Place:
    return Place(host.name, host.cpus or 0, node_gpus(host))


def node_of(host: HostState) -> Project | None:
    """Return a host's node; a head comes before a worker."""
    return next((host.projects[name] for name in PROJECTS if name in host.projects), None)


def node_container(host: HostState) -> Container | None:
    """Return the node's container."""
    node = node_of(host)
    return next(iter(node.containers), None) if node else None


def node_address(host: HostState) -> str:
    """Return the address by which Ray knows a node."""
    node = node_of(host)
    return (node.label("address") if node else None) or host.cluster_address


def node_gpus(host: HostState) -> int:
    """Count the GPUs that a node has; those of its host where it is yet to come."""
    node = node_of(host)
    return len([uuid for uuid in (node.label("gpus") or "").split(",") if uuid]) if node else len(host.gpus)


def runs(host: HostState) -> bool:
    """Tell whether a host's node runs."""
    container = node_container(host)
    return container is not None and container.state == "running"


def head_forgets(host: HostState) -> bool:
    """Tell whether a head that starts anew has forgotten its applications."""
    node = host.projects.get(HEAD_PROJECT)
    return node is not None and node.label("store") != "rocksdb"
