"""Which host and which GPUs: running replicas keep their place, new ones go where there is room."""

from collections.abc import Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, Gpu, HostState, Project
from onprem_llm.output import table_text
from onprem_llm.spec.deployment import Deployment, GpuAccess

# A driver holds some memory on an idle GPU; more than this share belongs to somebody.
IDLE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one replica goes. `elsewhere` names hosts that have the project and must lose it."""

    project: str
    index: int
    host: HostState
    gpus: tuple[Gpu, ...]
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a host offers: GPUs, or why it was passed over."""

    host: HostState
    gpus: tuple[Gpu, ...] = ()
    free: int = 0
    why: str | None = None


def place(deployment: Deployment, current: Current, *, known: bool, replicas: int = 1) -> tuple[Placement, ...]:
    """Place every replica.

    `known`: the book has the deployment, so a replica that is not seen may run on a host that does not answer.
    Raises UnreachableError then, and InvalidError with a table of the hosts when no host can carry a replica.
    """
    _check_names(deployment, current)
    taken: dict[str, set[str]] = {}
    load: dict[str, int] = {}
    placements = []
    for index in range(replicas):
        placement = _place_one(deployment, index, current, known, taken, load)
        taken.setdefault(placement.host.name, set()).update(gpu.uuid for gpu in placement.gpus)
        load[placement.host.name] = load.get(placement.host.name, 0) + 1
        placements.append(placement)
    return tuple(placements)


def homes(project: str, current: Current) -> list[HostState]:
    """Return the hosts that have a project, those where it runs first."""
    having = [host for host in current.hosts if project in host.projects]
    return sorted(having, key=lambda host: not _runs(host.projects[project]))


def access_path(deployment: Deployment, host: HostState) -> GpuAccess | None:
    """Return how a container reaches GPUs: as model.yaml says, else CDI where it is set up, else --gpus."""
    if deployment.resources.gpus == 0:
        return None
    # Bootstrap switches CDI on everywhere; it is set up where a specification names devices.
    return deployment.gpu_access or ("cdi" if host.engine.cdi and host.engine.cdi_devices else "gpus")


def device_names(placement: Placement, deployment: Deployment, access: GpuAccess | None) -> tuple[str, ...]:
    """Name the GPUs as the access path does: UUIDs; CDI by UUID only where such a device is known to exist."""
    if access != "cdi":
        return tuple(gpu.uuid for gpu in placement.gpus)
    existing = set(placement.host.engine.cdi_devices)
    if deployment.resources.gpus == "all" and (not existing or "all" in existing):
        return ("nvidia.com/gpu=all",)
    return tuple(f"nvidia.com/gpu={gpu.uuid if gpu.uuid in existing else gpu.index}" for gpu in placement.gpus)


def _place_one(
    deployment: Deployment,
    index: int,
    current: Current,
    known: bool,
    taken: dict[str, set[str]],
    load: dict[str, int],
) -> Placement:
    project = f"{deployment.name}-{index}"
    having = homes(project, current)
    if not having and known and current.unreachable:
        raise UnreachableError(
            f"{project} may run on a host that did not answer: {', '.join(current.unreachable)}",
            hint="it is not started a second time elsewhere: bring the host back and run this again",
        )
    verdicts = [_consider(deployment, host, project, taken.get(host.name, set())) for host in current.hosts]
    fitting = {verdict.host.name: verdict for verdict in verdicts if verdict.why is None}
    stay = next((host.name for host in having if host.name in fitting), None)
    if stay is None:
        _refuse_blind_move(deployment, project, having)
    if stay is None and not fitting:
        raise _no_room(deployment, project, verdicts)
    chosen = fitting[stay] if stay else min(fitting.values(), key=lambda verdict: _preference(verdict, load))
    elsewhere = tuple(host.name for host in having if host.name != chosen.host.name)
    return Placement(project, index, chosen.host, chosen.gpus, elsewhere)


def _refuse_blind_move(deployment: Deployment, project: str, having: Sequence[HostState]) -> None:
    """Raise UnreachableError where a replica's host cannot say whether it still runs: it is not started twice."""
    names = set(deployment.resources.hosts)
    for host in having:
        if names and host.name not in names and not names & set(host.groups):
            continue  # model.yaml sends it away
        sick = host.engine.error or "its container engine does not run" if not host.engine.running else None
        if sick is None and deployment.resources.gpus != 0 and not host.gpus:
            sick = host.gpu_error
        if sick:
            raise UnreachableError(
                f"{project} is on {host.name}, which cannot be judged now: {sick}",
                hint=f"it is not moved blindly: mend {host.name}, or name other hosts in resources.hosts",
            )


def _preference(verdict: Verdict, load: dict[str, int]) -> tuple[int, int]:
    # The tightest fit keeps large hosts free for large models; min() keeps the inventory's order among equals.
    return (verdict.free - len(verdict.gpus), len(verdict.host.projects) + load.get(verdict.host.name, 0))


def _consider(deployment: Deployment, host: HostState, project: str, taken: set[str]) -> Verdict:
    wanted = deployment.resources
    if wanted.hosts and host.name not in wanted.hosts and not set(wanted.hosts) & set(host.groups):
        return Verdict(host, why="not in resources.hosts")
    if not host.engine.running:
        return Verdict(host, why=f"the container engine does not run: {host.engine.error or 'run bootstrap'}")
    if wanted.gpus == 0:
        return Verdict(host)
    if not host.gpus:
        return Verdict(host, why=f"no GPU{': ' + host.gpu_error if host.gpu_error else ''}")
    suitable = [gpu for gpu in host.gpus if _model_accepted(gpu, wanted.gpu_models)]
    if not suitable:
        return Verdict(host, why=f"no {' or '.join(wanted.gpu_models)}")
    own = _claimed(host, only=project)
    busy = {gpu.uuid: reason for gpu in suitable if (reason := _busy(gpu, host, project, own, taken))}
    free = [gpu for gpu in suitable if gpu.uuid not in busy]
    if wanted.gpus == "all":
        if len(free) == len(host.gpus):
            return Verdict(host, tuple(free), len(free))
        return Verdict(host, free=len(free), why=_why_busy(busy) or "not all of its GPUs are of the models named")
    chosen = _choose(free, wanted.gpus, own)
    if chosen is None:
        return Verdict(host, free=len(free), why=_why_busy(busy) or f"has {len(suitable)}, not {wanted.gpus}")
    return Verdict(host, chosen, len(free))


def _choose(free: Sequence[Gpu], count: int, own: set[str]) -> tuple[Gpu, ...] | None:
    """Take the replica's own GPUs first, and all of one model: an engine over unlike GPUs runs as the worst."""
    by_model: dict[str, list[Gpu]] = {}
    for gpu in sorted(free, key=lambda gpu: (gpu.uuid not in own, gpu.index)):
        by_model.setdefault(gpu.name, []).append(gpu)
    enough = next((gpus[:count] for gpus in by_model.values() if len(gpus) >= count), None)
    return tuple(sorted(enough, key=lambda gpu: gpu.index)) if enough else None


def _busy(gpu: Gpu, host: HostState, project: str, own: set[str], taken: set[str]) -> str | None:
    other = next((p.name for p in host.projects.values() if p.name != project and gpu.uuid in _gpus_of(p)), None)
    if other:
        return f"GPU {gpu.index} is {other}'s"
    if gpu.uuid in taken:
        return f"GPU {gpu.index} goes to another replica"
    if gpu.uuid in own:
        return None
    if gpu.processes:
        first = gpu.processes[0]
        return f"GPU {gpu.index} is used by {first.name} (pid {first.pid})"
    if gpu.memory_total and gpu.memory_used and gpu.memory_used > gpu.memory_total * IDLE_SHARE:
        return f"GPU {gpu.index} has {gpu.memory_used} of {gpu.memory_total} MiB in use"
    return None


def _why_busy(busy: dict[str, str]) -> str | None:
    return "; ".join(busy.values()) or None


def _claimed(host: HostState, *, only: str) -> set[str]:
    project = host.projects.get(only)
    return _gpus_of(project) if project else set()


def _gpus_of(project: Project) -> set[str]:
    return {uuid for c in project.containers for uuid in (c.label("gpus") or "").split(",") if uuid}


def _model_accepted(gpu: Gpu, models: Sequence[str]) -> bool:
    return not models or any(model.lower() in gpu.name.lower() for model in models)


def _runs(project: Project) -> bool:
    return any(container.state in {"running", "restarting"} for container in project.containers)


def _check_names(deployment: Deployment, current: Current) -> None:
    known = {host.name for host in current.hosts} | {g for host in current.hosts for g in host.groups}
    unknown = [name for name in deployment.resources.hosts if name not in known | set(current.unreachable)]
    if unknown:
        raise InvalidError(
            f"resources.hosts of {deployment.name}: {', '.join(unknown)} is no host and no group of the inventory",
            hint=f"known names: {', '.join(sorted(known))}",
        )


def _no_room(deployment: Deployment, project: str, verdicts: Sequence[Verdict]) -> InvalidError:
    wanted = deployment.resources
    models = f" of {' or '.join(wanted.gpu_models)}" if wanted.gpu_models else ""
    need = f"{wanted.gpus} GPUs{models}" if wanted.gpus else "a host"
    rows = [
        (v.host.name, len(v.host.gpus), ", ".join(sorted({g.name for g in v.host.gpus})) or "-", v.free, v.why)
        for v in verdicts
    ]
    engines_down = all(not verdict.host.engine.running for verdict in verdicts)
    return InvalidError(
        f"no host can carry {project}: it needs {need} on one host",
        details=table_text(("host", "gpus", "model", "free", "passed over because"), rows),
        hint="prepare the hosts first: onprem-llm bootstrap INVENTORY"
        if engines_down
        else "change resources (gpus, gpu_models, hosts) in model.yaml, or free what holds the GPUs",
    )
