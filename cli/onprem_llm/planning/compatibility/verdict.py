"""Whether an image runs on a machine: refusals with what to do, warnings, or nothing to say."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from packaging.version import Version

from onprem_llm.planning.compatibility.images import Tag, how_built, named, others, read_tag
from onprem_llm.planning.compatibility.machines import Kind, Machine, branch_for, cuda_of, known_driver
from onprem_llm.planning.compatibility.numbers import Numbers, knows_method, number_findings
from onprem_llm.planning.compatibility.table import Image, Table, table

# `image`: it could not run there at all; `numbers`: not with these weights and flags.
About = Literal["image", "numbers"]
# What CUDA says of code for a newer driver.
PTX = "the provided PTX was compiled with an unsupported toolchain"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence; `remedy` only where the image is refused."""

    text: str
    about: About
    remedy: str | None = None
    refused: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that is to be said of an image on a machine."""

    findings: tuple[Finding, ...] = ()

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """What keeps the image from running."""
        return tuple(finding for finding in self.findings if finding.refused)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, and nothing that refuses."""
        return tuple(finding.text for finding in self.findings if not finding.refused)

    def hint(self, instead: str | None) -> str:
        """Say what to do: another image, or what each finding says."""
        remedies = dict.fromkeys(finding.remedy for finding in self.refusals if finding.remedy)
        first = (f"use {instead}",) if instead else ()
        return ", or ".join((*first, *remedies)) or "no image that is known here runs on these GPUs: choose other ones"


@functools.lru_cache(maxsize=1024)
def judge(machine: Machine, ref: str, numbers: Numbers, *, forward: bool = False) -> Verdict:
    """Judge an image on a machine.

    `forward`: its compatibility libraries are switched on. An image that the table does not know is not refused.
    Kept, since a site has hundreds of hosts and few kinds of them.
    """
    return Verdict(_findings(machine, ref, read_tag(ref), numbers, table(), forward=forward))


def nearest(machines: Sequence[Machine], ref: str, numbers: Numbers) -> str | None:
    """Return the nearest known image that would run on all machines, at the place where `ref` is; None: none would."""
    tag, known = read_tag(ref), table()
    if tag is None or not machines:
        return None
    both = replace(tag, architecture=None)
    for other in (*((both,) if tag != both else ()), *others(known, both, machines[0].architecture)):
        near = replace(other, system=tag.system if other.release == tag.release else "")
        if _runs_on_all(machines, named(ref, near), near, numbers, known):
            return named(ref, near)
    return None


def _runs_on_all(machines: Sequence[Machine], ref: str, tag: Tag, numbers: Numbers, known: Table) -> bool:
    """Tell whether an image is known to run on machines: one that is not known there is no advice."""
    if not knows_method(numbers, tag.release, known):
        return False
    if any(how_built(known, tag, machine.architecture) is None for machine in machines):
        return False
    found = (one for machine in machines for one in _findings(machine, ref, tag, numbers, known, forward=False))
    return not any(one.refused for one in found)


def _findings(
    machine: Machine, ref: str, tag: Tag | None, numbers: Numbers, known: Table, *, forward: bool
) -> tuple[Finding, ...]:
    image = how_built(known, tag, machine.architecture) if tag else None
    release = tag.release if tag and image else None
    about_numbers = tuple(
        Finding(found.text, "numbers", found.remedy, found.refused)
        for kind in machine.kinds
        for found in number_findings(kind, numbers, release, known)
    )
    if tag and tag.architecture not in {None, machine.architecture}:
        wrong = f"{ref} is an image for {tag.architecture}, and the host is {machine.architecture}"
        return (Finding(wrong, "image"),)
    if image is None or tag is None:
        return (_unknown(machine, ref), *about_numbers)
    return (
        *_driver(machine, ref, tag, image, known, forward=forward),
        *(found for kind in machine.kinds for found in _capability(kind, ref, image, known)),
        *about_numbers,
    )


def _unknown(machine: Machine, ref: str) -> Finding:
    kinds = ", ".join(kind.name for kind in machine.kinds)
    driver = f"driver {machine.driver}" if machine.driver else "the host's driver"
    text = (
        f"{ref} is not known here for {machine.architecture}: whether it runs under {driver} on {kinds} was not judged"
    )
    return Finding(text, "image", refused=False)


def _driver(machine: Machine, ref: str, tag: Tag, image: Image, known: Table, *, forward: bool) -> Iterator[Finding]:
    floor = next(row for row in known.majors if row.cuda == image.cuda.major)
    needs = f"CUDA {image.cuda}, driver >= {floor.driver}"
    driver = known_driver(machine.driver)
    if driver is None:
        text = f"{ref} wants {needs}; which driver the host has is not known here"
        yield Finding(text, "image", refused=False)
        return
    if Version(driver) >= floor.version:
        runs = cuda_of(driver, known)
        if runs is None or runs < image.cuda:
            yield from _minor(machine, ref, tag, image, known, forward=forward)
        return
    switch = _switch(machine, tag, image, driver, known)
    if switch and forward:
        text = f"driver {driver} runs {ref} ({needs}) through the image's compatibility libraries alone ({switch})"
        yield Finding(text, "image", refused=False)
        return
    upgrade = f"upgrade the driver to {floor.version.major} or newer"
    way = f'; or set env: {{{switch}: "1"}}, which data centre GPUs allow' if switch else ""
    yield Finding(f"driver {driver} cannot run {ref} ({needs})", "image", upgrade + way)


def _minor(machine: Machine, ref: str, tag: Tag, image: Image, known: Table, *, forward: bool) -> Iterator[Finding]:
    """Warn of a driver of the right major that is older than the image's CUDA: it runs, with limits."""
    allowed = all(kind.data_center for kind in machine.kinds) and tag.release >= known.forward.since
    if forward and allowed:
        return
    branch = branch_for(image.cuda, known)
    text = (
        f"driver {machine.driver} is older than CUDA {image.cuda}, which {ref} is built with: most runs, but what "
        f'is compiled as it starts may fail ("{PTX}"), and nvidia-container-cli may refuse GPUs that are not for data '
        f"centres (gpu_access: cdi does not ask it); driver {branch} has no such limits"
    )
    way = f', nor has env: {{{known.forward.switch}: "1"}}' if allowed else ""
    yield Finding(text + way, "image", refused=False)


def _switch(machine: Machine, tag: Tag, image: Image, driver: str, known: Table) -> str | None:
    """Return the variable that lets the image run on an older driver; None where it does not."""
    forward = known.forward
    rows = (row for row in forward.rows if row.cuda == image.cuda and Version(driver).major in row.branches)
    everywhere = all(kind.data_center for kind in machine.kinds) and tag.release >= forward.since
    return forward.switch if everywhere and any(rows) else None


def _capability(kind: Kind, ref: str, image: Image, known: Table) -> Iterator[Finding]:
    if kind.capability is None:
        text = f"{kind.name}: its compute capability is not known here, so {ref} was not judged on it"
        yield Finding(text, "image", refused=False)
    elif why := why_not(kind.capability, image, known):
        yield Finding(f"{kind} cannot run {ref}: {why}", "image")


def why_not(capability: Version, image: Image, known: Table) -> str | None:
    """Say why GPUs of a compute capability do not run an image; None where they do."""
    row = next((one for one in known.capabilities if one.capability == capability), None)
    if row and row.until is not None and image.cuda.major > row.until:
        return f"CUDA {image.cuda.major} has left it behind"
    if row and image.cuda < row.since:
        return f"it wants an image with CUDA {row.since} or newer, and this one has {image.cuda}"
    if any(target.runs_on(capability, known.tegra.capabilities) for target in image.built_for):
        return None
    return f"it is built for {' '.join(map(str, image.built_for))}"
