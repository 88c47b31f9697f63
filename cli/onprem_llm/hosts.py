"""What the hosts say, as typed values. Made from the probe's JSON; `null`, `[N/A]` and missing keys never break it."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from onprem_llm.book_state import Book, BookEntry, HostMark
from onprem_llm.errors import InvalidError
from onprem_llm.gateway_state import Certificate, Firewall, GatewayState, RayFirewall
from onprem_llm.hosts_digest import digest_of
from onprem_llm.machine_state import Disk, Engine, Listener, Lock
from onprem_llm.recorded import counting
from onprem_llm.schedule_state import HostSchedule
from onprem_llm.serve_state import ServeState

if TYPE_CHECKING:
    from onprem_llm.spec.network_facts import NetworkFacts


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that uses a GPU; memory in MiB, None where the driver does not say."""

    pid: int
    name: str
    memory: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; memory in MiB, None where the driver says [N/A]."""

    index: int
    uuid: str
    name: str
    memory_total: int | None
    memory_used: int | None
    compute_cap: str | None
    processes: tuple[GpuProcess, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a host has."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Container:
    """A container of one of our projects."""

    service: str
    id: str
    name: str
    image: str
    state: str
    health: str | None
    exit_code: int | None
    started_at: str | None
    restarts: int
    labels: Mapping[str, str]

    def label(self, name: str) -> str | None:
        """Return our own label, `digest` for onprem-llm.digest."""
        return self.labels.get(f"onprem-llm.{name}")


@dataclass(frozen=True, slots=True)
class Project:
    """A Compose project of ours on a host: its files (path -> sha256) and containers.

    `stored`: the digests that a registry's folder has whole; None where it was not looked at.
    """

    name: str
    path: str
    files: Mapping[str, str]
    secrets_digest: str | None
    containers: tuple[Container, ...]
    stored: frozenset[str] | None = None

    def label(self, name: str) -> str | None:
        """Return our label from the first container that has it."""
        return next((value for c in self.containers if (value := c.label(name)) is not None), None)


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """A folder of weights on a host; `drift` names the files that are missing or not as they were verified."""

    id: str
    path: str
    files: int
    bytes: int
    drift: tuple[str, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything that one host said."""

    name: str
    hostname: str
    os_name: str
    arch: str
    cpus: int | None
    memory_total: int | None
    memory_available: int | None
    boot_id: str | None
    disks: Mapping[str, Disk]
    addresses: tuple[str, ...]
    default_address: str | None
    listeners: tuple[Listener, ...]
    gpu_tool: bool
    driver: str | None
    cuda: str | None
    gpu_error: str | None
    gpus: tuple[Gpu, ...]
    engine: Engine
    images: tuple[Image, ...]
    projects: Mapping[str, Project]
    keys: Mapping[str, str]
    env_secrets: Mapping[str, Mapping[str, str]]
    weights: Mapping[str, StoredWeights]
    book: Book | None
    lock: Lock | None
    site: Mapping[str, object]
    groups: tuple[str, ...]
    ansible_host: str | None
    problems: tuple[str, ...] = ()  # parts of the look that failed; the rest is whole
    gateway_state: GatewayState | None = None
    firewall: Firewall | None = None
    certificates: Mapping[str, Certificate] = field(default_factory=dict)  # ca, gateway, engine
    healer: bool = False
    strays: int = 0  # bytes in a registry's folder that no image has; a chain that was cut off leaves them
    client_keys: Mapping[str, str] = field(default_factory=dict)  # fingerprints, as of `keys`
    interfaces: Mapping[str, str] = field(default_factory=dict)  # address -> network interface
    ray_firewall: RayFirewall | None = None
    links: Mapping[str, str] = field(default_factory=dict)  # of GPUs by index: "0-1" -> NV18, PIX, SYS…
    rdma: Mapping[str, bool] = field(default_factory=dict)  # ports, whether they are up: mlx5_0:1
    gang_interface: str | None = None  # that the inventory wants gangs to use
    schedules: Mapping[str, HostSchedule] = field(default_factory=dict)  # by deployment
    serve: ServeState | None = None  # on the host of the Ray cluster's head
    network: "NetworkFacts | None" = None  # bad lines between hosts, as check --network found them; on the gateway host

    def image(self, reference: str) -> Image | None:
        """Find an image by id, tag or repo@sha256 digest."""
        return next(
            (i for i in self.images if reference == i.id or reference in i.tags or reference in i.digests), None
        )

    @property
    def cluster_address(self) -> str:
        """The address at which other hosts reach this one: ansible_host if it is its own, else the default route's."""
        if self.ansible_host in self.addresses and self.ansible_host is not None:
            return self.ansible_host
        return self.default_address or self.ansible_host or self.name


@dataclass(frozen=True)
class Current:
    """All hosts that answered, in inventory order, and the names of those not seen: `left_out` of them on purpose."""

    hosts: tuple[HostState, ...]
    unreachable: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def host(self, name: str) -> HostState | None:
        """Find a host by its inventory name."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> Mapping[str, HostState]:
        """A plan asks for hosts thousands of times: what is asked for is found once."""
        return {host.name: host for host in reversed(self.hosts)}

    def hosts_with(self, deployment: str) -> tuple[HostState, ...]:
        """Return the hosts that may have projects of a deployment: by their label, or with one that nothing labels."""
        return tuple(host for host in self.hosts if {deployment, None} & self._labelled[host.name])

    @cached_property
    def _labelled(self) -> Mapping[str, Set[str | None]]:
        return {host.name: {p.label("deployment") for p in host.projects.values()} for host in self.hosts}

    @cached_property
    def gang_addresses(self) -> Mapping[str, Set[str]]:
        """Map each gang that stands to its members' addresses."""
        found: dict[str, set[str]] = {}
        for project in (project for host in self.hosts for project in host.projects.values()):
            gang, address = project.label("gang"), project.label("gang_address")
            if gang is not None and address:
                found.setdefault(gang, set()).add(address)
        return found

    @cached_property
    def gateway(self) -> HostState | None:
        """The host that is recorded as the gateway. One that another's book calls lost was it before, and is back."""
        return next(iter(self.recorded_gateways), None)

    @cached_property
    def recorded_gateways(self) -> tuple[HostState, ...]:
        """The hosts that say that they are the gateway, without those that another of them calls lost."""
        books = {host.name: host.book for host in self.hosts if host.book is not None and host.book.gateway}
        said = {name: {one: mark.state for one, mark in book.hosts.items()} for name, book in books.items()}
        counted = counting(said)
        return tuple(host for host in self.hosts if host.name in counted)

    @cached_property
    def gateways(self) -> tuple[HostState, ...]:
        """The hosts that run a gateway, the recorded one with the book first."""
        first = self.gateway
        others = [host for host in self.hosts if host is not first and host.book is not None and host.book.second]
        return () if first is None else (first, *others)

    @property
    def network(self) -> "NetworkFacts | None":
        """What is wrong with lines between hosts, as far as the gateway's book has been told."""
        return self.gateway.network if self.gateway is not None else None

    @property
    def marks(self) -> Mapping[str, HostMark]:
        """What the book says of hosts: drained, lost."""
        gateway = self.gateway
        return gateway.book.hosts if gateway is not None and gateway.book is not None else {}

    @property
    def book(self) -> Mapping[str, BookEntry]:
        """The deployments of the gateway's book."""
        gateway = self.gateway
        return gateway.book.deployments if gateway is not None and gateway.book is not None else {}

    def last_revision(self, deployment: str) -> int:
        """Return the last number that a deployment gave, also one that was taken down; 0 if there was none."""
        entry = self.book.get(deployment)
        gateway = self.gateway
        removed = gateway.book.removed if gateway is not None and gateway.book is not None else {}
        return max(entry.revision, entry.last) if entry else removed.get(deployment, 0)

    def site_settings(self) -> Mapping[str, object]:
        """Return `onprem_llm_site` as the inventory gives it to every host; InvalidError where hosts differ."""
        if not self.hosts:
            return {}
        first = self.hosts[0]
        other = next((host for host in self.hosts if host.site != first.site), None)
        if other is not None:
            raise InvalidError(
                f"onprem_llm_site is not the same on {first.name} and {other.name}",
                hint="these are the whole site's settings: put them in group_vars/all.yml only",
            )
        return first.site

    def digest(self) -> str:
        """Return 16 hex digits over all that planning depends on."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_of(self)
