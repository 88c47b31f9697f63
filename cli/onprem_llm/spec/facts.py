"""facts.json: what hosts are, for a machine that cannot reach them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from onprem_llm.errors import InvalidError
from onprem_llm.spec.canonical import Listed, Size, canonical, matching, read_json
from onprem_llm.spec.fields import Model
from onprem_llm.spec.lock import MaybeWord, Platform, Word
from onprem_llm.spec.network_facts import NetworkFacts, latest
from onprem_llm.spec.problems import checked

SCHEMA = 1
AGAIN = "collect it again: onprem-llm facts export -i INVENTORY -o facts.json, or on the host: sh collect.sh > FILE"
LONGEST_NAME = 253
# As packages and images name what the kernel calls x86_64.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

PciId = Annotated[str, matching(r"[0-9a-f]{4}:[0-9a-f]{4}", "vendor and device such as 10de:2330")]
# What is not the machine's own: how it was asked, and what changes by the minute.
_PASSING = {"collected_with"}


class System(Model):
    """The operating system, as its os-release calls it; a system that is always its newest has no version."""

    id: Word
    version_id: MaybeWord
    codename: MaybeWord


class Kernels(Model):
    """The kernel that runs, and those that may run after a reboot."""

    running: Word
    installed: Listed[Word]

    @property
    def all(self) -> tuple[str, ...]:
        """Every kernel that this host may run, sorted."""
        return tuple(sorted({self.running, *self.installed}))


class Cpu(Model):
    """The processor; `cores` are those that a process may use."""

    model: str
    cores: Annotated[int, Field(ge=1)]


class GpuFacts(Model):
    """A GPU. Its memory is unknown where there is no driver; `pci_id` is vendor:device (10de:2330)."""

    name: str
    memory_bytes: Size | None
    pci_id: PciId | None


class DiskFacts(Model):
    """A mounted file system."""

    mount: str
    filesystem: str
    size_bytes: Size
    free_bytes: Size


class HostFacts(Model):
    """What one host is."""

    os: System
    architecture: Literal["x86_64", "aarch64"]
    kernels: Kernels
    cpu: Cpu
    memory_bytes: Size
    gpus: Listed[GpuFacts]
    nvswitches: Annotated[int, Field(ge=0)] = 0  # what joins the GPUs; older facts do not say
    driver: str | None = None  # NVIDIA's, where it is loaded; facts of before it was asked for have none
    disks: Listed[DiskFacts]
    python: str | None
    collected_with: str

    @property
    def platform(self) -> Platform:
        """The platform as images name it."""
        return "linux/amd64" if self.architecture == "x86_64" else "linux/arm64"

    @property
    def release(self) -> tuple[str, str]:
        """The system's name and its release: debian, 13."""
        return self.os.id, self.os.version_id

    def lasting(self) -> dict[str, object]:
        """Return what two looks at an unchanged host agree on."""
        value = self.model_dump(mode="json", exclude=_PASSING)
        return value | {"disks": [{**disk, "free_bytes": None} for disk in value["disks"]]}


class Facts(Model):
    """Hosts by their names in the inventory, and the lines between them where they were measured."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA)] = SCHEMA
    hosts: dict[str, HostFacts]
    network: NetworkFacts | None = None

    @model_validator(mode="after")
    def _lines(self) -> "Facts":
        ends = [end for line in (self.network.lines if self.network else ()) for end in (line.source, line.target)]
        unknown = next((end for end in ends if end not in self.hosts), None)
        if unknown is not None:
            raise ValueError(f"network: found a line of {unknown!r}, expected lines between hosts of this file")
        return self

    @model_validator(mode="after")
    def _names(self) -> "Facts":
        bad = [name for name in self.hosts if not name or len(name) > LONGEST_NAME or not name.isprintable()]
        if bad:
            raise ValueError(f"hosts: found the name {bad[0]!r}, expected one as in the inventory")
        return self

    @property
    def data(self) -> bytes:
        """Return the file's bytes; the same facts always give the same."""
        return canonical(self.document)

    @property
    def document(self) -> dict[str, object]:
        """Return it as JSON has it; without a word of lines where none were measured, as older tools read it."""
        return self.model_dump(mode="json", exclude=None if self.network else {"network"})

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms of the hosts, sorted."""
        return tuple(sorted({host.platform for host in self.hosts.values()}))


def parse_facts(value: Mapping[str, object], where: str) -> Facts:
    """Check facts; InvalidError shows every problem with its path."""
    return checked(Facts, value, where=where)


def read_facts(path: Path) -> Facts:
    """Read a facts.json."""
    return parse_facts(read_json(path, what="a file of facts", schema=SCHEMA, again=AGAIN), str(path))


def merge_facts(files: Iterable[Path]) -> Facts:
    """Read files of facts and put their hosts together; InvalidError where two say different things of one host."""
    hosts: dict[str, HostFacts] = {}
    came: dict[str, Path] = {}
    networks: list[NetworkFacts] = []
    for path in files:
        read = read_facts(path)
        networks += [read.network] if read.network else []
        for name, host in read.hosts.items():
            known = hosts.setdefault(name, host)
            first = came.setdefault(name, path)
            if known.lasting() != host.lasting():
                raise InvalidError(
                    f"{name}: {first} and {path} say different things of this host: {_difference(known, host)}",
                    hint="leave out the older file, or collect the facts of this host again",
                )
    if not hosts:
        raise InvalidError("no host is in the facts", hint=AGAIN)
    return Facts(hosts=dict(sorted(hosts.items())), network=latest(networks) if networks else None)


def _difference(one: HostFacts, other: HostFacts) -> str:
    """Name the first field in which two looks at a host differ, and what each says."""
    left, right = one.lasting(), other.lasting()
    key = next(key for key in left if left[key] != right[key])
    return f"{key}: {left[key]} and {right[key]}"
