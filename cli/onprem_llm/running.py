"""What runs where, from what the hosts say: rows for status, and the place to ask for logs and chats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from onprem_llm.book_state import BookEntry
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.gateway_state import GatewayState
from onprem_llm.hosts import Container, Current, HostState, Project
from onprem_llm.planning.addresses import EVERY, LOOPBACK
from onprem_llm.planning.gateway import PROJECT as GATEWAY_PROJECT
from onprem_llm.planning.scheduled import is_due_off
from onprem_llm.planning.types import UI_PROJECT
from onprem_llm.probe_values import moment
from onprem_llm.ray_running import ray_deployments, ray_rows
from onprem_llm.rendering.ranks import rank_of, replica_of
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.running_rows import Member, Running, rotation_of


def running(current: Current, now: datetime) -> list[Running]:
    """List every container of ours in the order of hosts, what Ray runs, then what the book has and no host runs."""
    gateways, book = running_gateways(current), book_of(current)
    on_ray = ray_deployments(book)
    rows = [
        _in_rotation(_row(host, project, container, now), gateways)
        for host in current.hosts
        for project in host.projects.values()
        for container in project.containers
    ]
    seen = {row.project for row in rows}
    deployed = {row.deployment for row in rows}
    for name, entry in book.items():
        if name in on_ray:
            continue
        recorded = {project: at.host for project, at in entry.replicas.items()}
        if not recorded and name not in deployed:
            recorded = {f"{name}-0": ""}  # a book from before replicas were written down
        rows += [
            _absent(current, name, entry, project, recorded[project]) for project in recorded if project not in seen
        ]
    return [*_together(rows), *ray_rows(current, book, gateways, now)]


def _together(rows: Sequence[Running]) -> list[Running]:
    """Make one row of all parts of a replica over several hosts; where one does not run, it does not."""
    parts: dict[str, list[Running]] = {}
    for row in rows:
        if rank_of(row.project):
            parts.setdefault(replica_of(row.project), []).append(row)
    found = [_with_members(row, parts.pop(row.project, [])) for row in rows if not rank_of(row.project)]
    return [*found, *(row for rest in parts.values() for row in rest)]


def _with_members(row: Running, parts: Sequence[Running]) -> Running:
    members = tuple(
        Member(one.project, one.host or "", one.gpus, one.state, one.health, one.up_seconds, one.restarts)
        for one in sorted(parts, key=lambda one: rank_of(one.project))
    )
    sick = next((one for one in members if one.state != "running"), None)
    state = row.state if sick is None or row.state != "running" else f"{sick.project} is {sick.state}"
    return replace(row, members=members, state=state)


def running_gateways(current: Current) -> list[GatewayState]:
    """Return what the gateways that run say."""
    states = [host.gateway_state for host in current.hosts if host.gateway_state is not None]
    return [state for state in states if state.running]


def book_of(current: Current) -> Mapping[str, BookEntry]:
    """Return the deployments of the gateway's book, or of the copy where only the second gateway host answered."""
    if current.gateway is not None:
        return current.book
    copies = [host.book for host in current.hosts if host.book is not None and host.book.second]
    return copies[0].deployments if copies else {}


def _absent(current: Current, name: str, entry: BookEntry, project: str, host: str) -> Running:
    unknown = host in current.unreachable or (not host and bool(current.unreachable))
    return Running(
        project=project,
        deployment=name,
        replica=project.removeprefix(f"{name}-"),
        revision=str(entry.revision),
        host=host or None,
        gpus=(),
        state="unknown" if unknown else "missing",
        health=None,
        up_seconds=None,
        restarts=0,
        image=None,
        address=None,
    )


def _in_rotation(row: Running, gateways: Sequence[GatewayState]) -> Running:
    """Add what the gateways say of a replica; where two differ, both."""
    if row.deployment is None or row.replica is None or not gateways:
        return row
    servers = [gateway.servers.get(f"{row.deployment}/{row.project}") for gateway in gateways]
    return replace(
        row,
        rotation="/".join(dict.fromkeys(rotation_of(server) for server in servers)),
        sessions=sum(server.sessions for server in servers if server),
    )


def _row(host: HostState, project: Project, container: Container, now: datetime) -> Running:
    image = next((image for image in host.images if image.id == container.image), None)
    uuids = [uuid for uuid in (container.label("gpus") or "").split(",") if uuid]
    return Running(
        project=project.name,
        deployment=container.label("deployment"),
        replica=container.label("replica"),
        revision=container.label("revision"),
        host=host.name,
        gpus=tuple(_gpu_name(host, uuid) for uuid in uuids),
        state=container.state,
        health=container.health,
        up_seconds=_seconds_since(container.started_at, now) if container.state == "running" else None,
        restarts=container.restarts,
        image=image.tags[0] if image and image.tags else container.image[:19],
        address=container.label("listen"),
        scheduled_off=is_due_off(host, project.name) and container.state in {"exited", "created"},
    )


def _gpu_name(host: HostState, uuid: str) -> str:
    gpu = next((gpu for gpu in host.gpus if gpu.uuid == uuid), None)
    return str(gpu.index) if gpu else uuid


def _seconds_since(text: str | None, now: datetime) -> float | None:
    began = moment(text)
    return max(0.0, (now - began).total_seconds()) if began else None


@dataclass(frozen=True)
class Place:
    """A replica's host and project, to be asked directly."""

    host: HostState
    project: Project

    def url(self) -> str:
        """Return the address that the host itself reaches the replica at."""
        address, _, port = (self.project.label("listen") or "").rpartition(":")
        if not port:
            raise OnpremError(f"{self.project.name} on {self.host.name} is not running", hint="onprem-llm status")
        scheme = "https" if self.project.label("tls") == "on" else "http"
        return f"{scheme}://{LOOPBACK if address in EVERY else address}:{port}"


def places(current: Current, name: str) -> list[Place]:
    """Return where a deployment's replicas (or the UI) are; InvalidError if it is not known or runs nowhere."""
    found = [
        Place(host, project)
        for host in current.hosts
        for project in host.projects.values()
        if name in (project.name, project.label("deployment"))
    ]
    if not found:
        have = ", ".join(names(current)) or "none"
        raise InvalidError(f"nothing called {name!r} runs on these hosts; there is: {have}", hint="onprem-llm status")
    return found


def names(current: Current) -> Sequence[str]:
    """Name what logs can be asked for: the deployments, and the gateway, the UI and nodes of Ray where they are."""
    known = (GATEWAY_PROJECT, UI_PROJECT, HEAD_PROJECT, WORKER_PROJECT)
    ours = [one for one in known if any(one in host.projects for host in current.hosts)]
    return [*book_of(current), *ours]


def only_deployment(book: Mapping[str, object]) -> str:
    """Return the one deployment there is, so that its name need not be typed."""
    if len(book) == 1:
        return next(iter(book))
    if not book:
        raise InvalidError("nothing is deployed on these hosts", hint="onprem-llm deploy MODEL_YAML")
    have = ", ".join(book) or "none"
    raise InvalidError(f"which deployment? there are {len(book)}: {have}", hint="name it; onprem-llm status shows them")
