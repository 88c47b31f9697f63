"""What one host offers a replica: GPUs that are free and alike, or why it is passed over."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.hosts import Gpu, HostState, Project
from onprem_llm.planning.gpu_links import best_joined
from onprem_llm.spec.deployment import Deployment

# Says why a GPU will not do; None where it may.
Unsuited = Callable[[Gpu], str | None]
# A driver holds some memory on an idle GPU; more than this share belongs to somebody.
IDLE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a host offers: GPUs, or why it was passed over."""

    host: HostState
    gpus: tuple[Gpu, ...] = ()
    free: tuple[Gpu, ...] = ()
    why: str | None = None
    closed: bool = False  # to new replicas, whatever it could carry


def consider(
    deployment: Deployment,
    host: HostState,
    project: str,
    taken: set[str],
    unsuited: Unsuited = lambda gpu: None,
) -> Verdict:
    """Say which GPUs a host has for a replica, or why none; `taken` were given to other replicas by this plan.

    `unsuited` says why a GPU cannot run the image, or cannot hold the model.
    """
    wanted = deployment.resources
    if not may_run_on(deployment, host):
        return Verdict(host, why="not in resources.hosts")
    if not host.engine.running:
        return Verdict(host, why=f"the container engine does not run: {host.engine.error or 'run bootstrap'}")
    if wanted.gpus == 0:
        return Verdict(host)
    if not host.gpus:
        return Verdict(host, why=f"no GPU{': ' + host.gpu_error if host.gpu_error else ''}")
    suitable = [gpu for gpu in host.gpus if model_accepted(gpu, wanted.gpu_models)]
    if not suitable:
        return Verdict(host, why=f"no {' or '.join(wanted.gpu_models)}")
    wrong = next((why for gpu in suitable if (why := unsuited(gpu))), None)
    suitable = [gpu for gpu in suitable if not wrong or not unsuited(gpu)]
    if wrong and (not suitable or wanted.gpus == "all"):
        return Verdict(host, why=wrong)
    own = claimed(host, only=project)
    busy = {gpu.uuid: reason for gpu in suitable if (reason := _busy(gpu, host, project, taken))}
    free = [gpu for gpu in suitable if gpu.uuid not in busy]
    if wanted.gpus == "all":
        if len(free) == len(host.gpus):
            return Verdict(host, tuple(free), tuple(free))
        return Verdict(host, free=tuple(free), why=_why_busy(busy) or "not all of its GPUs are of the models named")
    chosen = _choose(free, wanted.gpus, own, host.links)
    if chosen is None:
        return Verdict(
            host, free=tuple(free), why=_why_busy(busy) or wrong or f"has {len(suitable)}, not {wanted.gpus}"
        )
    return Verdict(host, chosen, tuple(free))


def _choose(free: Sequence[Gpu], count: int, own: set[str], links: Mapping[str, str]) -> tuple[Gpu, ...] | None:
    """Take the replica's own GPUs, else those that reach each other best.

    All of one model: an engine over unlike GPUs runs as the worst.
    """
    by_model: dict[str, list[Gpu]] = {}
    for gpu in sorted(free, key=lambda gpu: (gpu.uuid not in own, gpu.index)):
        by_model.setdefault(gpu.name, []).append(gpu)
    enough = next((gpus for gpus in by_model.values() if len(gpus) >= count), None)
    if enough is None:
        return None
    stays = all(gpu.uuid in own for gpu in enough[:count])
    chosen = enough[:count] if stays else best_joined(enough, count, links)
    return tuple(sorted(chosen, key=lambda gpu: gpu.index))


def _busy(gpu: Gpu, host: HostState, project: str, taken: set[str]) -> str | None:
    why = in_use(gpu, host, {project})
    return why or (f"GPU {gpu.index} goes to another replica" if gpu.uuid in taken else None)


def in_use(gpu: Gpu, host: HostState, mine: Collection[str]) -> str | None:
    """Say who uses a GPU; None where nobody does, or projects of `mine` alone."""
    owner = next((p.name for p in host.projects.values() if p.name not in mine and gpu.uuid in _gpus_of(p)), None)
    if owner:
        return f"GPU {gpu.index} is {owner}'s"
    if any(gpu.uuid in claimed(host, only=project) for project in mine):
        return None
    if gpu.processes:
        first = gpu.processes[0]
        return f"GPU {gpu.index} is used by {first.name} (pid {first.pid})"
    if gpu.memory_total and gpu.memory_used and gpu.memory_used > gpu.memory_total * IDLE_SHARE:
        return f"GPU {gpu.index} has {gpu.memory_used} of {gpu.memory_total} MiB in use"
    return None


def _why_busy(busy: dict[str, str]) -> str | None:
    return "; ".join(busy.values()) or None


def claimed(host: HostState, *, only: str) -> set[str]:
    """Return the GPUs, by UUID, that the containers of one project were given."""
    project = host.projects.get(only)
    return _gpus_of(project) if project else set()


def _gpus_of(project: Project) -> set[str]:
    return {uuid for c in project.containers for uuid in (c.label("gpus") or "").split(",") if uuid}


def may_run_on(deployment: Deployment, host: HostState) -> bool:
    """Tell whether resources.hosts lets a replica onto a host."""
    wanted = deployment.resources.hosts
    return not wanted or host.name in wanted or bool(set(wanted) & set(host.groups))


def model_accepted(gpu: Gpu, models: Sequence[str]) -> bool:
    """Tell whether a GPU is of one of the models that resources.gpu_models names; of any where it names none."""
    return not models or any(model.lower() in gpu.name.lower() for model in models)
