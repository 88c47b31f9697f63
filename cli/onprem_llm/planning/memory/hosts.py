"""A replica's memory against the GPUs of hosts."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from onprem_llm.book_state import HostMark
from onprem_llm.hosts import Gpu, HostState
from onprem_llm.output import human_bytes
from onprem_llm.planning.compatibility import machines
from onprem_llm.planning.memory.changes import Remedy, remedies
from onprem_llm.planning.memory.judge import GpuKind, Subject, Sum, sum_of
from onprem_llm.planning.memory.overhead import CPU, driver_reserve
from onprem_llm.planning.offers import claimed, in_use, may_run_on, model_accepted
from onprem_llm.spec.deployment import Deployment

MIB = 1024**2
# `unknown`: nothing to judge by, and `why` says what is missing.
Verdict = Literal["fits", "tight", "no", "unknown"]
_RANK = {"fits": 0, "tight": 1, "no": 2}


@dataclass(frozen=True, slots=True)
class HostFit:
    """The verdict for one host, by the GPUs there that suit best; `gpus` are as many as are alike and not taken."""

    host: str
    verdict: Verdict
    why: str | None = None
    gpus: int = 0
    total: Sum | None = None
    remedies: tuple[Remedy, ...] = ()
    marked: bool = False  # it is drained, lost or removed, and takes nothing new


def kind_of(gpu: Gpu) -> GpuKind | None:
    """Return a GPU's kind, as if nothing were on it; None where its memory is not known."""
    if gpu.memory_total is None or gpu.memory_total <= 0:
        return None
    capability = machines.kind_of(gpu.name, gpu.compute_cap).capability
    return GpuKind(gpu.name, gpu.memory_total * MIB, capability=capability)


def fit_on(subject: Subject, deployment: Deployment, host: HostState, mark: HostMark | None = None) -> HostFit:
    """Judge a host for a replica of this deployment, by the GPUs that a deploy would take: idle ones and its own.

    `mark`: what the book says of the host. A drained one keeps what runs there, and takes nothing new.
    """
    wanted = deployment.resources
    if not may_run_on(deployment, host):
        return HostFit(host.name, "no", "not in resources.hosts")
    mine = {project.name for project in host.projects.values() if project.label("deployment") == deployment.name}
    if mark is not None and (mark.state != "drained" or not mine):
        return HostFit(host.name, "no", mark.said, marked=True)
    if wanted.gpus == 0:
        return _on_cpu(subject, host)
    if not host.gpus:
        return HostFit(host.name, "no", f"no GPU{': ' + host.gpu_error if host.gpu_error else ''}")
    suited = [gpu for gpu in host.gpus if model_accepted(gpu, wanted.gpu_models)]
    if not suited:
        return HostFit(host.name, "no", f"no {' or '.join(wanted.gpu_models)}")
    used = {gpu.uuid: why for gpu in suited if (why := in_use(gpu, host, mine))}
    free = [gpu for gpu in suited if gpu.uuid not in used]
    if not free:
        return HostFit(host.name, "no", "; ".join(used.values()))
    nodes = wanted.nodes if wanted.nodes != "auto" else 1
    groups = [_judge(subject, host, alike, mine, nodes) for alike in _alike(free)]
    return min(groups, key=lambda one: _RANK.get(one.verdict, 3))


def _on_cpu(subject: Subject, host: HostState) -> HostFit:
    """Judge an engine on CPUs by the host's memory: VLLM_CPU_KVCACHE_SPACE, else the engine's share of it."""
    if host.memory_total is None:
        return HostFit(host.name, "unknown", "it does not say how much memory it has")
    kind = GpuKind(CPU, host.memory_total, host.memory_available)
    total = sum_of(subject, kind)
    if total.answer == "fits":
        return HostFit(host.name, "fits", None, 0, total)
    return HostFit(host.name, total.answer, _short(total), 0, total, remedies(subject, kind, 0))


def _judge(subject: Subject, host: HostState, alike: list[Gpu], mine: Collection[str], nodes: int) -> HostFit:
    kind = kind_of(alike[0])
    if kind is None:
        return HostFit(host.name, "unknown", f"{alike[0].name} does not say how much memory it has", len(alike))
    kind = replace(kind, free=least_free(kind, host, alike, mine))
    total = sum_of(subject, kind)
    why = _impossible(subject, len(alike), kind, nodes)
    if why:
        return HostFit(host.name, "no", why, len(alike), total)
    if total.answer == "fits":
        return HostFit(host.name, "fits", None, len(alike), total)
    return HostFit(host.name, total.answer, _short(total), len(alike), total, remedies(subject, kind, len(alike)))


def _impossible(subject: Subject, count: int, kind: GpuKind, nodes: int) -> str | None:
    share = subject.settings.gpus // nodes
    if count < share:
        takes = f"takes {share}" if nodes == 1 else f"on {nodes} hosts takes {share} on each"
        return f"{count} of {kind.name} free, and a replica {takes}"
    return subject.undivided


def least_free(kind: GpuKind, host: HostState, alike: Iterable[Gpu], mine: Collection[str]) -> int | None:
    """Return what is free on the fullest, None where it is all: what a driver keeps is nobody's, nor what is ours."""
    own = {uuid for name in mine for uuid in claimed(host, only=name)}
    used = max(((gpu.memory_used or 0) * MIB for gpu in alike if gpu.uuid not in own), default=0)
    return kind.memory - used if used > driver_reserve(kind.memory) else None


def _short(total: Sum) -> str:
    where = "the host" if total.kind.name == CPU else total.kind.name
    if total.held_by_others:
        held = human_bytes(total.kind.memory - total.free)
        return f"others hold {held} of {where}, and the engine wants its share"
    doubt = f" ({total.doubt})" if total.doubt else ""
    return f"{human_bytes(total.missing)} are missing on {where if total.kind.name == CPU else f'each {where}'}{doubt}"


def _alike(gpus: Iterable[Gpu]) -> list[list[Gpu]]:
    """Group GPUs of one kind, the largest group first."""
    groups: dict[tuple[str, int | None], list[Gpu]] = {}
    for gpu in gpus:
        groups.setdefault((gpu.name, gpu.memory_total), []).append(gpu)
    return sorted(groups.values(), key=len, reverse=True)
