"""Machines as the table sees them: a driver, an architecture, and kinds of GPU."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from onprem_llm.hosts import Gpu, HostState
from onprem_llm.planning.compatibility.table import Table, table


@dataclass(frozen=True, slots=True)
class Kind:
    """A model of GPU; `capability` is None where neither the driver nor the table says it."""

    name: str
    capability: Version | None
    data_center: bool

    def __str__(self) -> str:
        """Name it as a person knows it."""
        return f"{self.name} (compute capability {self.capability or 'unknown'})"


@dataclass(frozen=True, slots=True)
class Machine:
    """One host, with the kinds of GPU that an engine is given there."""

    architecture: str
    driver: str | None
    kinds: tuple[Kind, ...]


def machine_of(host: HostState, gpus: Iterable[Gpu]) -> Machine:
    """Return a host as the table sees it, with some of its GPUs."""
    kinds = {gpu.name: kind_of(gpu.name, gpu.compute_cap) for gpu in gpus}
    return Machine(host.arch, host.driver, tuple(kinds.values()))


@functools.cache
def kind_of(name: str, capability: str | None = None) -> Kind:
    """Return a kind of GPU; what the driver says of its capability counts, its name where it says nothing.

    A name of the table is found as whole words of the given one, and the longest counts: "RTX 3080 Ti" is no RTX 3080.
    """
    said = _version(capability)
    words = _words(name)
    found = [
        (len(_words(one)), row.capability, one in row.data_center)
        for row in table().capabilities
        for one in (*row.data_center, *row.other)
        if _within(_words(one), words)
    ]
    _, known, data_center = max(found, default=(0, None, False), key=lambda one: one[0])
    return Kind(name, said or known, data_center)


def cuda_of(driver: str, known: Table) -> Version | None:
    """Return the newest CUDA that a driver runs: that of its branch, else of the one before; None for older ones."""
    branch = Version(driver).major
    rows = [row for row in known.drivers if row.branch <= branch]
    return rows[-1].cuda if rows else None


def branch_for(cuda: Version, known: Table) -> int | None:
    """Return the oldest branch of the driver that runs a CUDA without limits."""
    return next((row.branch for row in known.drivers if row.cuda >= cuda), None)


def _version(text: str | None) -> Version | None:
    """Read what a driver says: 9.0, or [N/A]."""
    try:
        return Version(text or "")
    except InvalidVersion:
        return None


def known_driver(text: str | None) -> str | None:
    """Return a driver's version where it is one; nvidia-smi says [N/A] on some machines."""
    return text if _version(text) is not None else None


def _words(name: str) -> list[str]:
    return re.split(r"[\s-]+", name.lower().removeprefix("nvidia "))


def _within(part: list[str], words: list[str]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))
