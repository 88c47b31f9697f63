"""Which hosts are in the site's Ray cluster: by the inventory's groups, and by what runs there."""

from collections.abc import Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.out_of_sight import awaited
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.spec.site import Site

HEAD_GROUP, WORKER_GROUP = "ray_head", "ray_worker"
PROJECTS = (HEAD_PROJECT, WORKER_PROJECT)


@dataclass(frozen=True, slots=True)
class RayHosts:
    """The cluster as it is to be. The head carries replicas where it is among the workers' hosts, too."""

    head: HostState
    workers: tuple[HostState, ...]
    head_carries: bool

    @property
    def all(self) -> tuple[HostState, ...]:
        """The head first."""
        return (self.head, *self.workers)


def ray_hosts(current: Current) -> RayHosts:
    """Return the hosts of the groups; InvalidError where there is not exactly one head, or nothing carries replicas."""
    heads = [host for host in current.hosts if HEAD_GROUP in host.groups]
    if len(heads) != 1:
        names = ", ".join(host.name for host in heads) or "none"
        silent = awaited(current)
        if not heads and silent:
            raise UnreachableError(
                f"no host that answered is in the inventory's group {HEAD_GROUP}; these did not answer: "
                f"{', '.join(silent)}",
                hint="bring them back and run this again",
            )
        raise InvalidError(
            f"the inventory's group {HEAD_GROUP} has {names}, expected exactly one host: the cluster's head",
            hint=f"write it into the inventory: [{HEAD_GROUP}], and the hosts that carry replicas in [{WORKER_GROUP}]",
        )
    members = [host for host in current.hosts if WORKER_GROUP in host.groups]
    if not members:
        raise InvalidError(
            f"the inventory's group {WORKER_GROUP} has no host: nothing would carry replicas",
            hint=f"write hosts into [{WORKER_GROUP}]; the head can be among them",
        )
    head = heads[0]
    workers = tuple(host for host in members if host is not head)
    return RayHosts(head, workers, head in members)


def strays(current: Current, hosts: RayHosts | None) -> list[tuple[HostState, str]]:
    """Return the nodes that run where the inventory has none: host and project."""
    wanted = {(hosts.head.name, HEAD_PROJECT), *((w.name, WORKER_PROJECT) for w in hosts.workers)} if hosts else set()
    return [
        (host, project)
        for host in current.hosts
        for project in PROJECTS
        if project in host.projects and (host.name, project) not in wanted
    ]


def standing_head(current: Current) -> HostState | None:
    """Return the host that has the head now."""
    return next((host for host in current.hosts if HEAD_PROJECT in host.projects), None)


def asked_host(current: Current) -> HostState | None:
    """Return the host on which Ray Serve is asked: the head's; the gateway's, where somebody else runs the cluster."""
    gateway = current.gateway
    elsewhere = gateway is not None and gateway.serve is not None and gateway.serve.elsewhere is not None
    return standing_head(current) or (gateway if elsewhere else None)


def require_prepared(hosts: Sequence[HostState], current: Current) -> None:
    """Raise InvalidError for a host on which no container can run, or that the book sends away."""
    for host in hosts:
        mark = current.marks.get(host.name)
        if mark is not None and mark.state != "drained":
            raise InvalidError(
                f"{host.name} is {mark.state}: it cannot be in the Ray cluster",
                hint=f"onprem-llm host undrain {host.name}, or take it out of the inventory's groups of Ray",
            )
        if not host.engine.running:
            raise InvalidError(
                f"{host.name} is not prepared: {host.engine.error or 'its container engine does not run'}",
                hint=f"onprem-llm bootstrap INVENTORY --limit {host.name}",
            )


def check_places(current: Current, hosts: RayHosts) -> None:
    """Raise InvalidError where the inventory has the head elsewhere than it stands: two heads would share the workers,
    head and worker of one host its ports, and what Ray Serve serves would end unsaid.
    """
    standing = standing_head(current)
    if standing is not None and standing is not hosts.head:
        raise InvalidError(
            f"the cluster's head is on {standing.name}, and the inventory's group {HEAD_GROUP} has {hosts.head.name}",
            hint=f"write {standing.name} into [{HEAD_GROUP}]; to move it, which ends what Ray serves: "
            "onprem-llm cluster down, then cluster up",
        )
    if WORKER_PROJECT in hosts.head.projects:
        raise InvalidError(
            f"{hosts.head.name} is a worker of the cluster, and the inventory's group {HEAD_GROUP} has it",
            hint=f"onprem-llm cluster down, then cluster up; or name another host in [{HEAD_GROUP}]",
        )


def check_ray_ports(site: Site, hosts: Sequence[HostState]) -> None:
    """Raise InvalidError where a port of Ray's is another's on a host whose node does not stand yet."""
    ports = site.ray.ports
    for host in hosts:
        if any(project in host.projects for project in PROJECTS):
            continue
        taken = [
            one for one in host.listeners if ports.first <= one.port <= ports.last or one.port == site.ray.serve_port
        ]
        if taken:
            one = taken[0]
            setting = "serve_port" if one.port == site.ray.serve_port else "ports"
            raise InvalidError(
                f"port {one.port} is in use on {host.name}: {one.holder} listens on {one.address or 'every address'}",
                hint=f"choose other ports: onprem_llm_site.ray.{setting}; or stop what holds it",
            )
