"""Where the replicas of a change go, each on one host or on several."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onprem_llm.book_state import BookEntry
from onprem_llm.planning.compatibility.placing import compatibility_of
from onprem_llm.planning.gang_placement import nodes_of, place_gang, place_gang_beside, share_of, why_gang_not
from onprem_llm.planning.gangs import check_multi_node
from onprem_llm.planning.memory.placing import Memory, tight_warning
from onprem_llm.planning.placement import Placement, Placer
from onprem_llm.planning.replicas import PlannedReplica, Revision


def memory_of(change: Revision, *, known: bool) -> Memory | None:
    """Return what judges the memory of GPUs; None where the model's files are not here, or it runs on CPUs."""
    files, deployment = change.wanted.files, change.deployment
    if files is None or deployment.resources.gpus == 0:
        return None
    return Memory(files, deployment, change.why, known=known)


def _decides_shape(reason: str) -> bool:
    """Tell whether a change is about what decides over how many hosts a replica goes; another image is not."""
    return reason.startswith("resources") or "_parallel_size" in reason or "executor_backend" in reason


class Places:
    """Places one replica after another, over as many hosts as each takes."""

    def __init__(self, change: Revision, entry: BookEntry | None) -> None:
        """Decide over how many hosts a replica goes; InvalidError where the image runs on one alone."""
        item, known = change.wanted, entry is not None
        recorded = entry.replicas if entry else {}
        touched = any(map(_decides_shape, change.why))
        self.whole, self.weights = change.deployment, change.manifest.id
        self.nodes = nodes_of(self.whole, change.current, entry, touched=touched)
        check_multi_node(self.whole, self.nodes)
        self.memory = memory_of(change, known=known)
        share = share_of(self.whole, self.nodes)
        self._placer = Placer(
            share,
            change.current,
            known,
            {project: at.host for project, at in recorded.items()},
            None if item.source else self.weights,
            item.only,
            self.memory,
            compatibility_of(replace(item, deployment=share), change.why, known=known),
            item.image,
            gangs={project: at.hosts for project, at in recorded.items() if at.members},
        )

    @property
    def passed_over(self) -> Mapping[str, str]:
        """Say why hosts were passed over by the last replica that had to choose."""
        return self._placer.passed_over

    def place(self, index: int) -> Placement:
        """Place a replica; errors as of Placer.place."""
        if self.nodes == 1:
            return self._placer.place(index)
        return place_gang(self._placer, self.whole, index, self.nodes)

    def beside(self, index: int, staged: Sequence[str]) -> Placement | None:
        """Place a replica that takes another one's place; None where there is no room."""
        if self.nodes == 1:
            return self._placer.place_beside(index, self.weights, staged)
        return place_gang_beside(self._placer, self.whole, index, self.nodes, self.weights, staged)

    def why_not(self, project: str) -> str | None:
        """Say why a replica that runs cannot go on where it is; None where it can."""
        if self.nodes > 1 and project in self._placer.gangs:
            return why_gang_not(self._placer, project, self.nodes)
        return self._placer.why_not(project)

    def tight(self, replica: PlannedReplica) -> str | None:
        """Warn of a replica that is to start and may not fit; None where it does."""
        if replica.outcome.change.action not in {"create", "update"}:
            return None
        return tight_warning(self.memory, replica.host, replica.project, replica.placement.gpus)
