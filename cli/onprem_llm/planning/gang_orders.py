"""Orders about gangs: which lines are tried before one starts, and its parts that are stopped when it cannot."""

from collections.abc import Iterable

from onprem_llm.planning.replicas import PlannedReplica
from onprem_llm.planning.types import Step
from onprem_llm.rendering.ranks import replica_of
from onprem_llm.spec.site import Site


def lines_of(replicas: Iterable[PlannedReplica]) -> dict[str, list[dict[str, object]]]:
    """Return host -> the lines that are tried there before anything starts: those of gangs of which nothing runs.

    One that runs has its ports, and has shown that its hosts reach each other.
    """
    found: dict[str, list[dict[str, object]]] = {}
    for replica in replicas:
        if not replica.others or any(map(_runs, replica.ranks)):
            continue
        addresses = {rank.host.name: rank.rank.me for rank in replica.ranks if rank.rank is not None}
        for rank in replica.ranks:
            own = rank.host.name
            peers = [{"host": host, "address": address} for host, address in addresses.items() if host != own]
            line: dict[str, object] = {
                "address": addresses[own],
                "ports": list(rank.rank.ports) if rank.rank else [],
                "peers": peers,
            }
            found.setdefault(own, []).append(line)
    return found


def _runs(rank: PlannedReplica) -> bool:
    project = rank.host.projects.get(rank.project)
    return project is not None and any(c.state in {"running", "restarting"} for c in project.containers)


def stop_step(site: Site, ranks: Iterable[PlannedReplica]) -> Step:
    """Return the step that stops parts of gangs and keeps all of them."""
    orders: dict[str, dict[str, list[object]]] = {}
    names: dict[str, None] = {}
    for rank in ranks:
        entry = {"name": rank.project, "path": site.project_path(rank.project)}
        orders.setdefault(rank.host.name, {"projects": []})["projects"].append(entry)
        names[replica_of(rank.project)] = None
    return Step("stop", f"Stop {', '.join(names)} on all hosts", orders)
