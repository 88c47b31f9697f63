"""A deployment as the gateway knows it: as the book has it, in the midst of a change, and after it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from onprem_llm.book_state import RecordedReplica
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.addresses import EVERY, Claim
from onprem_llm.planning.certificates import engine_name
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.ray_routes import ray_backend
from onprem_llm.planning.replicas import speaks_tls
from onprem_llm.planning.rotation import away
from onprem_llm.planning.standing import Standing, standing_of
from onprem_llm.rendering.haproxy import Backend, Server
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.site import Site


def server_of(standing: Standing) -> Server | None:
    """Return a replica as the gateway reaches it; None where it has no address."""
    if standing.claim is None:
        return None
    return _server(standing.project, standing.claim, standing.host, tls=standing.tls)


def _server(project: str, claim: Claim, host: HostState, *, tls: bool) -> Server:
    address = host.cluster_address if claim.address in EVERY else claim.address
    return Server(project, address, claim.port, engine_name(host.name) if tls else None)


def standing_backend(site: Site, deployment: Deployment, current: Current) -> Backend:
    """Return a deployment as the book has it: no replica but those that were deployed, in the revision that was."""
    if deployment.backend == "ray":
        return ray_backend(site, deployment, current)
    entry = current.book.get(deployment.name)
    standing = [s for s in standing_of(deployment.name, current) if s.belongs and not s.rank]
    recorded = entry.replicas if entry else {}
    silent = [project for project, at in recorded.items() if set(at.hosts) & set(current.unreachable)]
    here = [s for s in standing if s.project not in silent and not _is_away(s, recorded, current)]
    servers = [server for s in here if (server := server_of(s)) is not None]
    servers += silent_servers(deployment.name, silent, current, tls=speaks_tls(site, deployment, current))
    admits = {at.revision for at in recorded.values()} or {s.revision for s in standing}
    admits |= set(entry.pending if entry else ())  # a change was cut off: some run what it had begun
    return backend(deployment, servers, admits)


def silent_servers(deployment: str, projects: Iterable[str], current: Current, *, tls: bool) -> list[Server]:
    """Return the book's replicas on hosts that do not answer, at the addresses that a gateway has for them."""
    states = [host.gateway_state for host in reversed(current.gateways) if host.gateway_state is not None]
    known = {name: server for state in states for name, server in state.servers.items()}
    entry = current.book.get(deployment)
    recorded = entry.replicas if entry else {}
    return [
        Server(project, at.address, at.port, engine_name(recorded[project].host) if tls else None)
        for project in projects
        if (at := known.get(f"{deployment}/{project}")) is not None
        and not any(away(host, current) for host in recorded[project].hosts)
    ]


def _is_away(standing: Standing, recorded: Mapping[str, RecordedReplica], current: Current) -> bool:
    """Tell whether a replica gets no requests, for the sake of a host of its."""
    at = recorded.get(standing.project)
    return any(away(host, current) for host in {standing.host.name, *(at.hosts if at else ())})


def fleet_backend(deployment: Deployment, fleet: Fleet, current: Current, *, tls: bool) -> Backend:
    """Return a deployment as it is once the change is done."""
    there = [r for r in fleet.replicas if not any(away(rank.host.name, current) for rank in r.ranks)]
    servers = [_server(r.project, r.claim, r.host, tls=tls) for r in there]
    servers += silent_servers(deployment.name, fleet.silent, current, tls=tls)
    return backend(deployment, servers, {replica.revision for replica in fleet.replicas} | set(fleet.silent.values()))


def merged(before: Backend, after: Backend, renewed: Collection[str] = ()) -> Backend:
    """Return a deployment in the midst of a change: all that serve, in either revision; `renewed` are replaced."""
    old = [server for server in before.servers if server.project not in renewed]
    servers = {server.project: server for server in (*after.servers, *old)}
    return replace(
        after,
        servers=tuple(sorted(servers.values(), key=lambda server: server.project)),
        admits=tuple(sorted({*before.admits, *after.admits})),
    )


def backend(deployment: Deployment, servers: Sequence[Server], admits: set[int]) -> Backend:
    """Return what the gateway knows of a deployment."""
    return Backend(
        deployment=deployment.name,
        served_name=deployment.served_name,
        task=deployment.task,
        routing=deployment.routing,
        admits=tuple(sorted(admits)),
        servers=tuple(sorted(servers, key=lambda server: server.project)),
    )
