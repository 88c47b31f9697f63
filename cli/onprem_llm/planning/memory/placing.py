"""What memory says while replicas are placed: which GPUs are too small for sure, and how to say it."""

from collections.abc import Iterable
from dataclasses import replace

from onprem_llm.hosts import Gpu, HostState
from onprem_llm.output import human_bytes
from onprem_llm.planning.memory.changes import remedies
from onprem_llm.planning.memory.hosts import kind_of, least_free
from onprem_llm.planning.memory.judge import GpuKind, Sum, subject_of, sum_of
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.planning.memory.words import remedy_line, sum_lines
from onprem_llm.spec.deployment import Deployment

# What changes what an engine needs; where nothing of it was changed, what runs goes on.
_TOUCHES_MEMORY = ("engine", "weights", "resources", "model")


class Memory:
    """The memory that replicas of one deployment need; sums are kept, since hosts have few kinds of GPU."""

    def __init__(self, files: ModelFiles, deployment: Deployment, why: Iterable[str], *, known: bool) -> None:
        """Take the model; `why` is what changed of a deployment that the book has (`known`)."""
        self.subject = subject_of(files, deployment)
        self.spares_running = known and not any(reason.startswith(_TOUCHES_MEMORY) for reason in why)
        self._sums: dict[GpuKind, Sum] = {}

    def sum(self, gpu: Gpu) -> Sum | None:
        """Return the sum for a GPU, as if nothing else were on it; None where its memory is not known."""
        kind = kind_of(gpu)
        if kind is None:
            return None
        if kind not in self._sums:
            self._sums[kind] = sum_of(self.subject, kind)
        return self._sums[kind]

    def too_small(self, gpu: Gpu) -> str | None:
        """Say why a GPU is too small, by what is counted and not estimated; None where it may do."""
        total = self.sum(gpu)
        if total is None or total.answer != "no":
            return None
        has, needed = human_bytes(total.kind.memory), human_bytes(total.weights + total.kv_taken)
        return f"too small for the model: {gpu.name} has {has}, and weights and KV cache take {needed}"

    def refusal(self, hosts: Iterable[tuple[Gpu, ...]]) -> tuple[str, str] | None:
        """Return the sum on the GPUs that miss least, and the smallest change that makes it fit there.

        `hosts`: the GPUs of each host that may run it. None where one of them is not too small: then it is for another
        reason that they do not do.
        """
        sums = [(self.sum(gpu), gpus) for gpus in hosts for gpu in gpus]
        found = [(total, gpus) for total, gpus in sums if total is not None and total.answer == "no"]
        if not found or len(found) < len(sums):
            return None
        counted = [(total, sum(kind_of(gpu) == total.kind for gpu in gpus)) for total, gpus in found]
        total, count = max(counted, key=lambda one: (one[0].left, one[1]))
        changes = remedies(self.subject, total.kind, count)
        hint = "onprem-llm fit MODEL_YAML shows what each host could carry"
        if changes:
            hint = f"the smallest change that fits: {remedy_line(changes[0])}; {hint}"
        return "\n".join(sum_lines(total, self.subject)), hint


def tight_warning(memory: Memory | None, host: HostState, project: str, gpus: tuple[Gpu, ...]) -> str | None:
    """Warn of a replica that fits by what is counted, and with what is estimated does not, or whose heads are odd.

    And of one whose GPUs others hold a part of, so that the engine cannot have its share.
    """
    if memory and memory.subject.undivided:
        return f"{project} will not start on {host.name}: {memory.subject.undivided}"
    kind = kind_of(gpus[0]) if memory and gpus else None
    if memory is None or kind is None:
        return None
    total = sum_of(memory.subject, replace(kind, free=least_free(kind, host, gpus, {project})))
    if total.held_by_others:
        held = human_bytes(total.kind.memory - total.free)
        return (
            f"{project} will not start on {host.name}: others hold {held} of {kind.name}, and the engine wants "
            f"{total.share:g} of it; onprem-llm fit MODEL_YAML says which gpu_memory_utilization would do"
        )
    if total.answer != "tight":
        return None
    return (
        f"{project} may not start on {host.name}: by estimate {human_bytes(total.missing)} are missing on each "
        f"{total.kind.name}{f' ({total.doubt})' if total.doubt else ''}; onprem-llm fit MODEL_YAML shows the sum"
    )
