"""A replica's memory against the GPUs of hosts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from onprem_llm.hosts import Gpu, HostState
from onprem_llm.output import human_bytes
from onprem_llm.planning.memory.changes import Remedy, remedies
from onprem_llm.planning.memory.judge import GpuKind, Subject, Sum, sum_of
from onprem_llm.planning.memory.overhead import CPU
from onprem_llm.planning.offers import may_run_on, model_accepted
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


def kind_of(gpu: Gpu, *, ours: bool = True) -> GpuKind | None:
    """Return a GPU's kind; None where its memory is not known. `ours`: what is in use there goes first."""
    if gpu.memory_total is None or gpu.memory_total <= 0:
        return None
    memory = gpu.memory_total * MIB
    used = (gpu.memory_used or 0) * MIB
    return GpuKind(gpu.name, memory, None if ours or not used else memory - used)


def fit_on(subject: Subject, deployment: Deployment, host: HostState) -> HostFit:
    """Judge a host for a replica of this deployment: GPUs of other deployments are taken, its own count as free."""
    wanted = deployment.resources
    if not may_run_on(deployment, host):
        return HostFit(host.name, "no", "not in resources.hosts")
    if wanted.gpus == 0:
        return _on_cpu(subject, host)
    if not host.gpus:
        return HostFit(host.name, "no", f"no GPU{': ' + host.gpu_error if host.gpu_error else ''}")
    suited = [gpu for gpu in host.gpus if model_accepted(gpu, wanted.gpu_models)]
    if not suited:
        return HostFit(host.name, "no", f"no {' or '.join(wanted.gpu_models)}")
    owners = _owners(host, deployment.name)
    free = [gpu for gpu in suited if owners.get(gpu.uuid, True)]
    if not free:
        return HostFit(host.name, "no", "all of its GPUs are other deployments'")
    groups = [_judge(subject, host, alike, owners) for alike in _alike(free, owners)]
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


def _judge(subject: Subject, host: HostState, alike: list[Gpu], owners: dict[str, bool]) -> HostFit:
    kind = kind_of(alike[0], ours=owners.get(alike[0].uuid, False))
    if kind is None:
        why = f"{alike[0].name} does not say how much memory it has"
        return HostFit(host.name, "unknown", why, len(alike))
    total = sum_of(subject, kind)
    enough = len(alike) >= subject.settings.gpus
    if total.answer == "fits" and enough:
        return HostFit(host.name, "fits", None, len(alike), total)
    found = remedies(subject, kind, len(alike))
    if not enough:
        why = f"{len(alike)} of {kind.name}, and a replica takes {subject.settings.gpus}"
        return HostFit(host.name, "no", why, len(alike), total, found)
    return HostFit(host.name, total.answer, _short(total), len(alike), total, found)


def _short(total: Sum) -> str:
    where = "the host" if total.kind.name == CPU else total.kind.name
    if total.held_by_others:
        held = human_bytes(total.kind.memory - total.free)
        return f"others hold {held} of {where}, and the engine wants its share"
    return f"{human_bytes(-total.left)} are missing on {where if total.kind.name == CPU else f'each {where}'}"


def _alike(gpus: Iterable[Gpu], owners: dict[str, bool]) -> list[list[Gpu]]:
    """Group GPUs of one model of which as much is free: one that others use a little does not speak for all."""
    groups: dict[tuple[str, GpuKind | None], list[Gpu]] = {}
    for gpu in gpus:
        groups.setdefault((gpu.name, kind_of(gpu, ours=owners.get(gpu.uuid, False))), []).append(gpu)
    return sorted(groups.values(), key=len, reverse=True)


def _owners(host: HostState, deployment: str) -> dict[str, bool]:
    """Return the GPUs that projects of ours hold: uuid -> whether it is this deployment."""
    return {
        uuid: project.label("deployment") == deployment
        for project in host.projects.values()
        for container in project.containers
        for uuid in (container.label("gpus") or "").split(",")
        if uuid
    }
