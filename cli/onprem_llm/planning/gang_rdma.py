"""Through which RDMA ports the hosts of a gang talk: those that it was started with, as long as they are there."""

from collections.abc import Sequence

from onprem_llm.planning.placement import Placement
from onprem_llm.rendering.ranks import LABEL_RDMA, replica_of

Ports = Sequence[tuple[str, ...]]  # of each host, in the order of ranks


def ports_that_are_up(places: Sequence[Placement]) -> Ports:
    """Return the ports that are up, of all hosts or of none: one without would wait for ever for the others."""
    found = [tuple(port for port, up in place.host.rdma.items() if up) for place in places]
    return found if all(found) else [()] * len(places)


def standing_ports(places: Sequence[Placement]) -> Ports | None:
    """Return what a gang that stands was started with; None where it does not stand whole, or has lost one of them.

    A port that is down for a moment is none that is lost: NCCL passes it over as it starts, and what runs has noticed.
    """
    found: list[tuple[str, ...]] = []
    for place in places:
        project = place.host.projects.get(place.project)
        if project is None or project.label("gang") != replica_of(place.project):
            return None
        ports = tuple(filter(None, (project.label(LABEL_RDMA.rpartition(".")[2]) or "").split(",")))
        if not set(ports) <= set(place.host.rdma):
            return None
        found.append(ports)
    return found
