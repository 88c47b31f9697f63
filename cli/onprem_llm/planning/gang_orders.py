"""Orders about gangs: which lines are tried before one starts, and its parts that are stopped when it cannot."""

from collections.abc import Iterable, Sequence

from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import EVERY, LOOPBACK, standing_claim
from onprem_llm.planning.replicas import PlannedReplica
from onprem_llm.planning.types import Step
from onprem_llm.rendering.ranks import replica_of
from onprem_llm.spec.site import Site


def lines_of(replicas: Iterable[PlannedReplica], gateways: Sequence[HostState]) -> dict[str, list[dict[str, object]]]:
    """Return host -> the lines that are tried there before anything starts: those of gangs of which nothing runs.

    One that runs has its ports, and has shown that its hosts reach each other, and the gateways where it answers.
    """
    found: dict[str, list[dict[str, object]]] = {}
    for replica in replicas:
        if not replica.others:
            continue
        runs = any(map(_runs, replica.ranks))
        moves = replica.claim != standing_claim(replica.host, replica.project)
        lines = [*(() if runs else _among(replica)), *(_from_gateways(replica, gateways) if moves or not runs else ())]
        for host, line in lines:
            found.setdefault(host, []).append(line)
    return found


def _among(gang: PlannedReplica) -> Iterable[tuple[str, dict[str, object]]]:
    """Yield what its hosts try among themselves: the gang's ports, and those that the kernel chooses."""
    addresses = {rank.host.name: rank.rank.me for rank in gang.ranks if rank.rank is not None}
    for rank in gang.ranks:
        own = rank.host.name
        peers = [{"host": host, "address": address} for host, address in addresses.items() if host != own]
        yield own, {"address": addresses[own], "ports": list(rank.rank.ports) if rank.rank else [], "peers": peers}


def _from_gateways(gang: PlannedReplica, gateways: Sequence[HostState]) -> Iterable[tuple[str, dict[str, object]]]:
    """Yield what gateways try: the port where requests come in.

    Ports that docker publishes pass a host's own firewall by; this one is on the host's own network, and does not.
    """
    claim, host = gang.claim, gang.host
    others = [gateway for gateway in gateways if gateway.name != host.name]
    if not others or claim.address == LOOPBACK:
        return
    yield host.name, {"address": claim.address, "ports": [claim.port], "peers": []}
    address = host.cluster_address if claim.address in EVERY else claim.address
    peer = {"host": host.name, "address": address, "ports": [claim.port]}
    for gateway in others:
        yield gateway.name, {"address": gateway.cluster_address, "ports": [], "peers": [peer]}


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
