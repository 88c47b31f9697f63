"""Replicas of a deployment as they stand, before anything is changed."""

from collections.abc import Iterable
from dataclasses import dataclass

from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import Claim, standing_claim
from onprem_llm.planning.replicas import in_service
from onprem_llm.planning.rotation import is_down
from onprem_llm.rendering.ranks import rank_of, replica_of


@dataclass(frozen=True, slots=True)
class Standing:
    """A replica as it stands on a host before anything is changed."""

    project: str
    host: HostState
    claim: Claim | None
    revision: int
    serving: bool
    tls: bool = False
    belongs: bool = True  # the book has it there
    routed: bool = True  # it gets requests: it serves, the book has it there, no gateway has it for down
    rank: int = 0  # of a replica over several hosts; requests come to the first alone


def standing_of(name: str, current: Current) -> tuple[Standing, ...]:
    """Return the deployment's replicas as they stand: one entry a host and project."""
    return tuple(
        _standing(name, host, project, current)
        for host in current.hosts_with(name)
        for project in sorted(projects_of(host, name))
    )


def projects_of(host: HostState, name: str) -> list[str]:
    """Return a deployment's projects: by their label, and by their name where no container is left to carry one."""
    return [
        project.name
        for project in host.projects.values()
        if project.label("deployment") == name or (not project.containers and index_of(project.name, name) is not None)
    ]


def _standing(name: str, host: HostState, project: str, current: Current) -> Standing:
    found = host.projects[project]
    revision = found.label("revision") or ""
    serving, belongs = in_service(host, project, current), _belongs(name, project, host, current)
    return Standing(
        project,
        host,
        standing_claim(host, project),
        int(revision) if revision.isdigit() else 0,
        serving,
        found.label("tls") == "on",
        belongs,
        serving and belongs and not rank_of(project) and not is_down(f"{name}/{project}", current),
        rank_of(project),
    )


def _belongs(name: str, project: str, host: HostState, current: Current) -> bool:
    entry = current.book.get(name)
    if entry is None or not entry.replicas:  # a book from before replicas were written down
        return True
    at, rank = entry.replicas.get(replica_of(project)), rank_of(project)
    return at is not None and rank < len(at.hosts) and at.hosts[rank] == host.name


def index_of(project: str, deployment: str) -> int | None:
    """Return the number of a replica, by the project of any of its ranks; None for a project of something else."""
    name, _, index = replica_of(project).rpartition("-")
    return int(index) if name == deployment and index.isdigit() else None


def unused(used: Iterable[int], count: int) -> list[int]:
    """Return the lowest numbers that nobody has."""
    taken, index = set(used), 0
    found: list[int] = []
    while len(found) < count:
        if index not in taken:
            found.append(index)
        index += 1
    return found
