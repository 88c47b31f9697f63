"""Which rehearsal hosts stand for the hosts of an inventory, and what of them is a substitute. Pure."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError
from onprem_llm.spec.facts import GpuFacts, HostFacts

MIB = 1024 * 1024
MAX_GPUS = 16
LONGEST_HOSTNAME = 63


@dataclass(frozen=True)
class Substitute:
    """Something that is not as on site; `host` None: of all hosts."""

    what: str
    on_site: str
    here: str
    host: str | None = None


@dataclass(frozen=True)
class LikeHost:
    """A host to be made: the inventory's name, what it calls itself, GPUs as `lab up --gpus` takes them."""

    name: str
    hostname: str
    gpus: str | None


@dataclass(frozen=True)
class Likeness:
    """The lab to be made. `ready`: hosts that have bootstrap's packages already, since the bundle has none for them."""

    hosts: tuple[LikeHost, ...]
    os: str
    ready: bool
    substitutes: tuple[Substitute, ...]


@dataclass(frozen=True)
class Machine:
    """What this machine can make: host images, GPU models (name → what nvidia-smi calls it and its MiB), its kernel."""

    systems: Sequence[str]
    gpus: Mapping[str, tuple[str, int]]
    architecture: str
    kernel: str
    ready: Sequence[str] | None = None  # systems that have bootstrap's packages themselves; None: all


def check_architecture(wanted: Mapping[str, str], machine: Machine) -> None:
    """InvalidError where something (what it is → its architecture as `uname -m` says it) cannot run on this machine."""
    others = [f"{what} is {one}" for what, one in wanted.items() if one != machine.architecture]
    if others:
        raise InvalidError(
            f"{', '.join(others)}, this machine is {machine.architecture}: nothing of it would run here",
            hint="rehearse on a machine of that architecture",
        )


def likeness(
    names: Sequence[str], facts: Mapping[str, HostFacts], packaged: Sequence[tuple[str, str]], machine: Machine
) -> Likeness:
    """Return the lab that is as much like the hosts as this machine can make it.

    `facts` may lack hosts; `packaged` are the systems (debian, 13) that the bundle has packages for.
    """
    system, systems = _system(names, facts, packaged, machine)
    hosts, gpus = [], []
    for name, hostname in zip(names, _hostnames(names), strict=True):
        spec, found = _gpus(name, facts.get(name), machine)
        hosts.append(LikeHost(name, hostname, spec))
        gpus += found
    always = [
        Substitute("hosts", "machines", "containers that boot systemd (docs/lab.md)"),
        Substitute("network", "the site's", "an internal docker network; other addresses, a dead end for a way out"),
        *_kernels(facts, machine),
    ]
    ready = _release(system) not in packaged
    return Likeness(tuple(hosts), system, ready, (*always, *systems, *gpus))


def _hostnames(names: Sequence[str]) -> list[str]:
    """Return what each calls itself: the name as far as a host can have it, with a number where it is taken."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9-]", "-", name).strip("-") or "host"
        ends = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
        tries = (plain[: LONGEST_HOSTNAME - len(end)].rstrip("-") + end for end in ends)
        hostname = next(one for one in tries if one.lower() not in found)
        found[hostname.lower()] = hostname
    return list(found.values())


def _release(system: str) -> tuple[str, str]:
    name, _, release = system.partition("-")
    return name, release


def _system(
    names: Sequence[str], facts: Mapping[str, HostFacts], packaged: Sequence[tuple[str, str]], machine: Machine
) -> tuple[str, list[Substitute]]:
    """Choose the one system of the lab: what most hosts have, of those that can be made here."""
    wanted = {name: "-".join(facts[name].release) for name in names if name in facts}
    unknown = [name for name in names if name not in facts]
    in_bundle = [system for system in machine.systems if _release(system) in packaged]
    able = [one for one in machine.systems if one in in_bundle or machine.ready is None or one in machine.ready]
    counts = Counter(one for one in wanted.values() if one in able)
    system = counts.most_common(1)[0][0] if counts else [*in_bundle, able[0]][0]
    others = [Substitute("system", one, system, name) for name, one in wanted.items() if one != system]
    missing = [Substitute("system", "not known: no facts", system, name) for name in unknown]
    return system, [*others, *missing]


def _kernels(facts: Mapping[str, HostFacts], machine: Machine) -> list[Substitute]:
    kernels = sorted({host.kernels.running for host in facts.values()}) or ["not known: no facts"]
    return [Substitute("kernel", ", ".join(kernels), f"{machine.kernel}, this machine's")]


def _gpus(name: str, facts: HostFacts | None, machine: Machine) -> tuple[str | None, list[Substitute]]:
    if facts is None:
        return None, [Substitute("GPUs", "not known: no facts", "none", name)]
    if not facts.gpus:
        return None, []
    model = _model(facts.gpus[0], machine)
    count = min(len(facts.gpus), MAX_GPUS)
    spec = f"{count}x{model}"
    on_site = ", ".join(f"{many}x {one}" for one, many in Counter(gpu.name for gpu in facts.gpus).items())
    return spec, [Substitute("GPUs", on_site, f"{spec}, stand-ins that compute nothing", name)]


def _model(gpu: GpuFacts, machine: Machine) -> str:
    """Return the stand-in of that name, else the one whose memory is nearest."""
    for model, (called, _) in machine.gpus.items():
        if called == gpu.name:
            return model
    wanted = (gpu.memory_bytes or 0) / MIB
    return min(machine.gpus, key=lambda model: abs(machine.gpus[model][1] - wanted))
