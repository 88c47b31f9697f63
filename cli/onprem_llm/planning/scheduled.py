"""Which replicas their schedule leaves out now, as the hosts have decided it: planning itself knows no clock."""

from collections.abc import Iterable

from onprem_llm.hosts import Current, HostState
from onprem_llm.spec.deployment import Deployment

RUNS = frozenset({"running", "restarting", "paused"})


def is_off(deployment: Deployment, host: HostState, project: str) -> bool:
    """Tell whether a replica is off by the clock: its host has decided so, and it does not run.

    One that is left out and still runs is on its way out; it is treated as one that runs.
    """
    there = host.schedules.get(deployment.name)
    if not deployment.schedule or there is None or there.decided is None or project not in there.decided.off:
        return False
    found = host.projects.get(project)
    return found is not None and not any(container.state in RUNS for container in found.containers)


def is_due_off(host: HostState, project: str) -> bool:
    """Tell whether a host's clock has decided that a replica is not to run now, whichever deployment it is of."""
    return any(one.decided is not None and project in one.decided.off for one in host.schedules.values())


def known_order(name: str, current: Current) -> tuple[str, ...]:
    """Return the order in which replicas run so far, as the first host that has a table of it says."""
    return next((host.schedules[name].order for host in current.hosts if name in host.schedules), ())


def kept_order(projects: Iterable[str], known: tuple[str, ...]) -> list[str]:
    """Return the order where some hosts keep the table that they have: as it was, new ones in the places of those gone.

    By any other order a replica could be off on its own host and, by the others' tables, the one that runs.
    """
    there = set(projects)
    new = iter(sorted(there - set(known), key=lambda project: int(project.rpartition("-")[2])))
    placed = [project if project in there else next(new, None) for project in known]
    return [*(project for project in placed if project is not None), *new]


def order_of(projects: Iterable[str], off: frozenset[str], away: Iterable[str], known: tuple[str, ...]) -> list[str]:
    """Return who runs first, so that whoever runs now runs on: those that are off last, then as it was, then by number.

    Those on hosts that get no requests come after all others, off or not.
    """
    places, out = {project: at for at, project in enumerate(known)}, set(away)

    def rank(project: str) -> tuple[bool, bool, int, int]:
        return (project in out, project in off, places.get(project, len(places)), int(project.rpartition("-")[2]))

    return sorted(projects, key=rank)
