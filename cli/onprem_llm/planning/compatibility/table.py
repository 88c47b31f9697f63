"""The table as typed rows. table.yaml says where each is from; a row that names no source is refused."""

import functools
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from importlib import resources
from typing import Annotated, Literal

from packaging.version import Version
from pydantic import BeforeValidator, Field, PlainValidator, StringConstraints, model_validator

from onprem_llm.spec.documents import Document
from onprem_llm.spec.fields import Model

Architecture = Literal["x86_64", "aarch64"]


def _version(value: object) -> Version:
    """Read 12.9, 8.6 or 0.8.5.post1. YAML takes 12.9 for a number, which 12.10 would not survive: quotes are wanted."""
    if not isinstance(value, str):
        raise ValueError(f"found {value!r}, expected a version in quotes")
    return Version(value)


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _targets(value: object) -> tuple["Target", ...]:
    """Read TORCH_CUDA_ARCH_LIST: "7.5 8.0 9.0+PTX"."""
    words = str(value).split()
    return tuple(Target(Version(word.removesuffix("+PTX")), word.endswith("+PTX")) for word in words)


class Target:
    """One compute capability that code was compiled for; `ptx`: and code that newer GPUs compile for themselves."""

    def __init__(self, capability: Version, ptx: bool) -> None:
        """Take it as it stands in the list."""
        self.capability, self.ptx = capability, ptx

    def runs_on(self, capability: Version, tegra: Collection[Version]) -> bool:
        """Tell whether a GPU runs this code: one of the same major that is as new or newer, or any newer one by PTX."""
        if self.capability in tegra or capability in tegra:
            return self.capability == capability
        same = self.capability.major == capability.major
        return self.capability <= capability and (same or self.ptx)

    def __str__(self) -> str:
        """Write it as the list does."""
        return f"{self.capability}{'+PTX' if self.ptx else ''}"


Of = Annotated[Version, PlainValidator(_version)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Versions = Annotated[tuple[Of, ...], BeforeValidator(_listed), Field(min_length=1)]
Branches = Annotated[tuple[int, ...], BeforeValidator(_listed), Field(min_length=1)]
Url = Annotated[str, StringConstraints(pattern=r"^https://[^\s]+$")]


class Source(Model):
    """Where rows are from: an address, the day it was read, what stands there."""

    url: Url
    read: date
    note: str


class Sourced(Model):
    """A row; `source` names entries of `sources`."""

    source: Annotated[Names, Field(min_length=1)]


class Driver(Sourced):
    """A branch of the driver, and the newest CUDA that it runs."""

    branch: int
    cuda: Of


class Major(Sourced):
    """The oldest driver that runs programs of a major of CUDA at all."""

    cuda: int
    driver: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]  # 580.65.06: a Version would lose its zero

    @property
    def version(self) -> Version:
        """The driver, to be compared."""
        return Version(self.driver)


class Forward(Sourced):
    """Older branches on which an image's own libraries run its CUDA, on GPUs for data centres."""

    cuda: Of
    branches: Branches


class ForwardCompatibility(Sourced):
    """The environment variable that switches it on, and the first release that knows it."""

    switch: str
    since: Of
    rows: Annotated[tuple[Forward, ...], BeforeValidator(_listed)]


class Capability(Sourced):
    """A compute capability: which CUDAs have it (`until`: the last major), which GPUs."""

    capability: Of
    since: Of
    until: int | None = None
    data_center: Names = ()
    other: Names = ()


class Tegra(Sourced):
    """Compute capabilities whose code runs on them alone."""

    capabilities: Versions


class Image(Sourced):
    """How releases were built for one architecture; `variant` is cu129 in v0.20.2-cu129."""

    releases: Versions
    variant: str = ""
    architecture: Architecture
    cuda: Of
    built_for: Annotated[tuple[Target, ...], PlainValidator(_targets)]

    def built_like(self, release: Version) -> bool:
        """Tell whether a release is one of these, or lies between two of them."""
        return self.releases[0] <= release <= self.releases[-1]


class Bfloat16(Sourced):
    """From which GPUs on there is bfloat16, and from which release on `dtype: auto` does without."""

    capability: Of
    auto_falls_back_since: Of


class Fp8(Sourced):
    """From which GPUs on fp8 is computed, not only unpacked."""

    capability: Of


class Fp8Cache(Sourced):
    """Where an engine keeps keys and values (`latent`: MLA's vectors) in fp8; no capability for one on CPUs."""

    attention: Literal["keys", "latent", "cpu"]
    capability: Of | None = None
    most: Of | None = None
    since: Of

    def runs_on(self, capability: Version | None) -> bool:
        """Tell whether a GPU has it; None is a host's CPUs."""
        if capability is None or self.capability is None:
            return capability == self.capability
        return self.capability <= capability and (self.most is None or capability <= self.most)


class Quantization(Sourced):
    """The least compute capability of a method, in releases from `since` to `until`."""

    method: str
    capability: Of
    since: Of | None = None
    until: Of | None = None

    def holds_for(self, release: Version) -> bool:
        """Tell whether a release is meant; one that lies between two rows of a method is not."""
        return (self.since is None or self.since <= release) and (self.until is None or release <= self.until)


class MultiNode(Sourced):
    """The first release that runs one engine on several hosts without Ray."""

    since: Of


class Table(Model):
    """Everything that is known."""

    sources: dict[str, Source]
    drivers: Annotated[tuple[Driver, ...], BeforeValidator(_listed)]
    majors: Annotated[tuple[Major, ...], BeforeValidator(_listed)]
    minor_versions: Sourced
    multi_node: MultiNode
    forward: ForwardCompatibility
    capabilities: Annotated[tuple[Capability, ...], BeforeValidator(_listed)]
    tegra: Tegra
    images: Annotated[tuple[Image, ...], BeforeValidator(_listed)]
    bfloat16: Bfloat16
    fp8: Fp8
    fp8_cache: Annotated[tuple[Fp8Cache, ...], BeforeValidator(_listed)]
    quantization: Annotated[tuple[Quantization, ...], BeforeValidator(_listed)]

    def rows(self) -> Iterator[Sourced]:
        """Yield every row."""
        yield from (*self.drivers, *self.majors, *self.forward.rows, *self.capabilities, *self.images)
        yield from (
            *self.quantization,
            *self.fp8_cache,
            self.minor_versions,
            self.multi_node,
            self.tegra,
            self.forward,
            self.bfloat16,
            self.fp8,
        )

    @model_validator(mode="after")
    def _whole(self) -> "Table":
        used = {name for row in self.rows() for name in row.source}
        wrong = sorted(used ^ set(self.sources))
        if wrong:
            raise ValueError(f"sources that are not there, or that no row names: {', '.join(wrong)}")
        _ascending("drivers", [row.branch for row in self.drivers])
        _ascending("capabilities", [row.capability for row in self.capabilities])
        for image in self.images:
            _ascending(f"releases of {image.releases[0]}", image.releases)
        return self


def _ascending(what: str, values: Sequence[object]) -> None:
    if list(values) != sorted(set(values)):  # type: ignore[type-var]
        raise ValueError(f"{what}: expected each once, the lowest first")


def parse_table(text: str) -> Table:
    """Read a table; pydantic's ValidationError where it does not fit."""
    return Table.model_validate(Document.parse(text, "table.yaml").value)


@functools.cache
def table() -> Table:
    """Return the table of this package."""
    return parse_table(resources.files(__package__).joinpath("table.yaml").read_text("utf-8"))
