"""Which host and which GPUs: running replicas keep their place, new ones go where there is room."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, Gpu, HostState, Project
from onprem_llm.planning.compatibility.placing import Compatibility
from onprem_llm.planning.memory.placing import Memory
from onprem_llm.planning.no_room import LACKS, no_room
from onprem_llm.planning.offers import Unsuited, Verdict, consider
from onprem_llm.planning.staging import can_have
from onprem_llm.planning.types import ImageSource
from onprem_llm.spec.deployment import Deployment, GpuAccess


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one replica goes."""

    project: str
    index: int
    host: HostState
    gpus: tuple[Gpu, ...]
    others: "tuple[Placement, ...]" = ()  # further ranks of a replica over several hosts, each on its own


@dataclass(slots=True)
class Placer:
    """Places one replica after another, and remembers what it gave away.

    `recorded` says where the book has each replica: project -> host. `known`: the book has the deployment, so a replica
    that is not seen may run on a host that does not answer.
    """

    deployment: Deployment
    current: Current
    known: bool
    recorded: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None  # only hosts that have them will do: nothing can bring them
    only: tuple[str, ...] = ()  # hosts that new replicas may go to; none named: all
    memory: Memory | None = None  # what the model needs, where its files are here
    compatibility: Compatibility | None = None  # which GPUs run the image
    image: ImageSource | None = None  # where only one will do: hosts that have it, or can be sent it
    gangs: Mapping[str, Sequence[str]] = field(default_factory=dict)  # replica -> its hosts in the book, where several
    passed_over: dict[str, str] = field(default_factory=dict)  # host -> why, of the last replica that had to choose
    _taken: dict[str, set[str]] = field(default_factory=dict)
    _offers: dict[str, Verdict] = field(default_factory=dict)  # of hosts that nothing was taken of since
    _load: dict[str, int] = field(default_factory=dict)

    def place(self, index: int) -> Placement:
        """Place a replica: where it is, if it can stay there, else where there is room.

        Raises UnreachableError where it may run on a host that does not answer, and InvalidError with a table of the
        hosts when no host can carry it.
        """
        project = f"{self.deployment.name}-{index}"
        having = homes(project, self.current, self.recorded.get(project))
        if not having and self._may_be_silent(project):
            raise UnreachableError(
                f"{project} may run on a host that did not answer: {', '.join(self.current.unreachable)}",
                hint="it is not started a second time elsewhere: bring the host back and run this again, "
                "or declare the host lost: onprem-llm host remove HOST --lost",
            )
        stays = next((here for host in having if (here := self.consider(host, project)).why is None), None)
        if stays is not None:
            return self.take(Placement(project, index, stays.host, stays.gpus))
        _refuse_blind_move(self.deployment, project, having)
        fitting, verdicts = self._fitting(project)
        if not fitting:
            raise no_room(self.deployment, project, verdicts, self.memory, self.compatibility)
        self.passed_over = {verdict.host.name: verdict.why for verdict in verdicts if verdict.why}
        chosen = min(fitting, key=self.preference)
        return self.take(Placement(project, index, chosen.host, chosen.gpus))

    def why_not(self, project: str) -> str | None:
        """Say why a replica that runs cannot go on where it is; None where it can."""
        having = homes(project, self.current, self.recorded.get(project))
        verdicts = [self.consider(host, project) for host in having]
        if any(verdict.why is None for verdict in verdicts):
            return None
        known = [host for host in having if not is_lost(self.current, host.name)]
        _refuse_blind_move(self.deployment, project, known)
        return next((f"{verdict.host.name}: {verdict.why}" for verdict in verdicts), None)

    def place_beside(self, index: int, weights: str, staged: Collection[str]) -> Placement | None:
        """Place a replica that takes another one's place; None where there is no room.

        It goes where the weights are, or where they are sent anyway (`staged`): nothing more is sent for a spare that
        only makes a gap smaller.
        """
        project = f"{self.deployment.name}-{index}"
        fitting, _ = self._fitting(project)
        near = [verdict for verdict in fitting if weights in verdict.host.weights or verdict.host.name in staged]
        if not near:
            return None
        chosen = min(near, key=self.preference)
        return self.take(Placement(project, index, chosen.host, chosen.gpus))

    def take(self, placement: Placement) -> Placement:
        """Give away what a placement takes, and return it."""
        name = placement.host.name
        self._offers.pop(name, None)
        self._taken.setdefault(name, set()).update(gpu.uuid for gpu in placement.gpus)
        self._load[name] = self._load.get(name, 0) + 1
        return placement

    def _fitting(self, project: str) -> tuple[list[Verdict], list[Verdict]]:
        verdicts = [self._offer(host, project) for host in self.current.hosts]
        return [verdict for verdict in verdicts if verdict.why is None], verdicts

    def _offer(self, host: HostState, project: str) -> Verdict:
        """Return what `consider` does, kept: a host without the project offers every replica the same."""
        if project in host.projects:
            return self.consider(host, project)
        if host.name not in self._offers:
            self._offers[host.name] = self.consider(host, project)
        return self._offers[host.name]

    def consider(self, host: HostState, project: str) -> Verdict:
        """Say what a host offers a project, or why none."""
        mark = self.current.marks.get(host.name)
        if mark is not None and (mark.state != "drained" or project not in host.projects):
            return Verdict(host, why=mark.said, closed=True)
        if self.weights is not None and self.weights not in host.weights and project not in host.projects:
            return Verdict(host, why=f"{LACKS} weights {self.weights}")
        if self.image is not None and not can_have(host, self.image) and project not in host.projects:
            return Verdict(host, why=f"{LACKS} image {self.image.ref}, and no archive of it is here")
        if self.only and host.name not in self.only and project not in host.projects:
            return Verdict(host, why=f"new replicas are to go to {', '.join(self.only)}", closed=True)
        return consider(
            self.deployment, host, project, self._taken.get(host.name, set()), self._unsuited(host, project)
        )

    def _unsuited(self, host: HostState, project: str) -> Unsuited:
        """Return what says why a GPU will not do; what runs is spared where nothing of it was changed."""
        checks = list[Unsuited]()
        if self.compatibility:
            checks.append(self.compatibility.unsuited(host, project))
        if self.memory and not (project in host.projects and self.memory.spares_running):
            checks.append(self.memory.too_small)
        return lambda gpu: next((why for check in checks if (why := check(gpu))), None)

    def preference(self, verdict: Verdict) -> tuple[int, int, int]:
        """Return what is smallest for the best host; min() keeps the inventory's order among equals.

        Spread keeps replicas apart, so that a host that dies takes few along; pack fills hosts, and keeps others free
        for models that need a whole one. Among equals both take the tightest fit by free GPU memory.
        """
        own = self._load.get(verdict.host.name, 0)
        apart = own if self.deployment.resources.placement == "spread" else -own
        return (apart, _free_after(verdict), len(verdict.host.projects) + own)

    def refuse_blind_move(self, project: str, having: Sequence[HostState]) -> None:
        """Raise UnreachableError where a host cannot say whether what it has still runs."""
        _refuse_blind_move(self.deployment, project, having)

    def _may_be_silent(self, project: str) -> bool:
        """Tell whether a replica may run on a host that did not answer, and was not declared lost.

        A book from before replicas were written down does not say where any of them is.
        """
        silent = {name for name in self.current.unreachable if not is_lost(self.current, name)}
        if not self.recorded:
            return self.known and bool(silent)
        return self.recorded.get(project) in silent


def is_lost(current: Current, host: str) -> bool:
    """Tell whether a host was declared lost: what it ran is started elsewhere."""
    mark = current.marks.get(host)
    return mark is not None and mark.state == "lost"


def _free_after(verdict: Verdict) -> int:
    """Return the free memory (MiB) of the GPUs that would stay free; a GPU that does not say counts as one."""
    left = [gpu for gpu in verdict.free if gpu not in verdict.gpus]
    return sum((gpu.memory_total or 1) - (gpu.memory_used or 0) for gpu in left)


def homes(project: str, current: Current, recorded: str | None = None) -> list[HostState]:
    """Return the hosts that have a project: the one that the book names first, then those where it runs."""
    having = [host for host in current.hosts if project in host.projects]
    return sorted(having, key=lambda host: (host.name != recorded, not _runs(host.projects[project])))


def access_path(deployment: Deployment, host: HostState) -> GpuAccess | None:
    """Return how a container reaches GPUs: as model.yaml says, else CDI where it works, else --gpus."""
    if deployment.resources.gpus == 0:
        return None
    return deployment.gpu_access or working_access(host)


def working_access(host: HostState) -> GpuAccess:
    """Return the access path that works on a host."""
    engine = host.engine
    # Bootstrap switches CDI on everywhere; it is set up where a specification names devices.
    set_up = engine.cdi and bool(engine.cdi_devices)
    # One that names what is gone starts nothing. NVIDIA's runtime looks for the driver's files itself.
    broken = bool(engine.cdi_missing) and "nvidia" in engine.runtimes
    return "cdi" if set_up and not broken else "gpus"


def device_names(placement: Placement, deployment: Deployment, access: GpuAccess | None) -> tuple[str, ...]:
    """Name the GPUs as the access path does: by UUID; by index alone where the specification has no other names."""
    if access != "cdi":
        return tuple(gpu.uuid for gpu in placement.gpus)
    existing = set(placement.host.engine.cdi_devices)
    if deployment.resources.gpus == "all" and (not existing or "all" in existing):
        return ("nvidia.com/gpu=all",)
    # A card that is not among those by UUID is not that of its index, either: cards were swapped, or one dropped.
    by_index = not any(name.startswith("GPU-") for name in existing)
    return tuple(f"nvidia.com/gpu={gpu.index if by_index else gpu.uuid}" for gpu in placement.gpus)


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


def _runs(project: Project) -> bool:
    return any(container.state in {"running", "restarting"} for container in project.containers)


def check_names(deployment: Deployment, current: Current) -> None:
    """Raise InvalidError where resources.hosts names what the inventory does not have."""
    known = {host.name for host in current.hosts} | {g for host in current.hosts for g in host.groups}
    unknown = [name for name in deployment.resources.hosts if name not in known | set(current.unreachable)]
    if unknown:
        raise InvalidError(
            f"resources.hosts of {deployment.name}: {', '.join(unknown)} is no host and no group of the inventory",
            hint=f"known names: {', '.join(sorted(known))}",
        )
