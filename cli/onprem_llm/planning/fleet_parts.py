"""Small things that choosing replicas needs: what the model takes, which changes are of numbers alone, free numbers."""

from collections.abc import Iterable

from onprem_llm.planning.memory.placing import Memory
from onprem_llm.planning.replicas import Revision


def memory_of(change: Revision, *, known: bool) -> Memory | None:
    """Return what judges the memory of GPUs; None where the model's files are not here, or it runs on CPUs."""
    files, deployment = change.wanted.files, change.deployment
    if files is None or deployment.resources.gpus == 0:
        return None
    return Memory(files, deployment, change.why, known=known)


def only_counts(why: Iterable[str]) -> bool:
    """Tell whether a change is about nothing but how many replicas there are, and how requests reach them."""
    return all(reason.startswith(("replicas:", "schedule:", "timezone:", "update", "routing:")) for reason in why)


def unused(used: Iterable[int], count: int) -> list[int]:
    """Return the lowest numbers that nobody has."""
    taken, index = set(used), 0
    found: list[int] = []
    while len(found) < count:
        if index not in taken:
            found.append(index)
        index += 1
    return found
