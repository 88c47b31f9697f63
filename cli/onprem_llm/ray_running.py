"""What runs of deployments on Ray, from what Ray Serve says on the host of the cluster's head: rows beside the others'.

Ray places replicas and names them; the gateway knows nodes, not replicas: one is let in where its deployment is.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from onprem_llm.book_state import BookEntry
from onprem_llm.errors import OnpremError
from onprem_llm.gateway_state import GatewayState
from onprem_llm.hosts import Current, HostState
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.running_rows import Running, rotation_of
from onprem_llm.serve_state import RUNNING, ServeApplication, ServeReplica, ServeState
from onprem_llm.spec.deployment import Deployment, parse_deployment

# How Ray's words for a replica are shown where ours differ; others are shown in small letters.
STATES = {"STARTING": "starting", "RUNNING": "running", "STOPPING": "stopping"}


def ray_deployments(book: Mapping[str, BookEntry]) -> dict[str, Deployment]:
    """Return the deployments of the book that are on Ray; one that cannot be read is none of them."""
    found = {}
    for name, entry in book.items():
        if "ray" not in entry.model_yaml:  # to read it takes a millisecond
            continue
        try:
            deployment = parse_deployment(entry.model_yaml, f"the book's {name}")
        except OnpremError:
            continue  # written by a newer version
        if deployment.backend == "ray":
            found[name] = deployment
    return found


def serve_of(current: Current) -> tuple[HostState, ServeState] | None:
    """Return what Serve says, and the host of the cluster's head; None where no host that answered has it."""
    return next(((host, host.serve) for host in current.hosts if host.serve is not None), None)


def ray_rows(
    current: Current, book: Mapping[str, BookEntry], gateways: Sequence[GatewayState], now: datetime
) -> list[Running]:
    """Return a row for each replica of each deployment on Ray; one with no host where Ray says of none."""
    said = serve_of(current)
    rows = []
    for name in ray_deployments(book):
        app = said[1].applications.get(name) if said else None
        mine = [_row(current, name, book[name], app, one, gateways, now) for one in app.engines] if app else []
        rows += mine or [_none(name, book[name], _state(said[1] if said else None, app))]
    return rows


def _row(
    current: Current,
    name: str,
    entry: BookEntry,
    app: ServeApplication,
    replica: ServeReplica,
    gateways: Sequence[GatewayState],
    now: datetime,
) -> Running:
    host = node_host(current, replica.address)
    # Which of two revisions a replica has Ray does not say.
    revision = str(entry.revision) if app.status == RUNNING else None
    runs = replica.state == "RUNNING"
    up = max(0.0, now.timestamp() - replica.started) if runs and replica.started else None
    return Running(
        project=f"{name}-{replica.id}",
        deployment=name,
        replica=replica.id,
        revision=revision,
        host=host.name if host else replica.address,
        gpus=(),
        state=STATES.get(replica.state, replica.state.lower()) if replica.address else "waits for room",
        health="healthy" if runs else None,
        up_seconds=up,
        restarts=0,
        image=_image(host) if host else None,
        address=None,
        rotation=_rotation(name, gateways) if runs else None,
    )


def _none(name: str, entry: BookEntry, state: str) -> Running:
    return Running(
        project=name,
        deployment=name,
        replica=None,
        revision=str(entry.revision),
        host=None,
        gpus=(),
        state=state,
        health=None,
        up_seconds=None,
        restarts=0,
        image=None,
        address=None,
    )


def _state(serve: ServeState | None, app: ServeApplication | None) -> str:
    if serve is None or serve.error:
        return "unknown"
    if app is None:
        return "missing"
    return "no replica" if app.status == RUNNING else app.status.lower().replace("_", " ")


def _rotation(name: str, gateways: Sequence[GatewayState]) -> str | None:
    """Say whether each gateway lets the deployment in at some node; where two differ, both."""
    ways = [
        [rotation_of(server) for key, server in gateway.servers.items() if key.startswith(f"{name}/")] or ["out"]
        for gateway in gateways
    ]
    return "/".join(dict.fromkeys("in" if "in" in one else one[0] for one in ways)) or None


def node_host(current: Current, address: str | None) -> HostState | None:
    """Return the host whose node of the cluster has an address."""
    return next(
        (
            host
            for host in current.hosts
            for project in (HEAD_PROJECT, WORKER_PROJECT)
            if address is not None and project in host.projects and host.projects[project].label("address") == address
        ),
        None,
    )


def _image(host: HostState) -> str | None:
    ids = [one.image for name in (HEAD_PROJECT, WORKER_PROJECT) if name in host.projects
           for one in host.projects[name].containers]  # fmt: skip
    tags = [tag for image in host.images if image.id in ids for tag in image.tags]
    return next(iter([*tags, *(one[:19] for one in ids)]), None)


def ray_bounds(deployment: Deployment | None) -> str | None:
    """Return between how many replicas Ray chooses, `1-3`; None where their number is fixed."""
    scaling = deployment.replicas if deployment is not None and deployment.backend == "ray" else None
    return None if scaling is None or isinstance(scaling, int) else f"{scaling.min}-{scaling.max}"


def ray_wanted(current: Current, deployment: Deployment) -> int:
    """Return how many replicas Ray wants now; where it does not say, the fewest."""
    said = serve_of(current)
    app = said[1].applications.get(deployment.name) if said else None
    return app.wanted if app is not None and app.wanted is not None else deployment.slots


def ray_worries(current: Current, book: Mapping[str, BookEntry]) -> list[str]:
    """Say what is not well of deployments on Ray, each with what to do."""
    names, said = list(ray_deployments(book)), serve_of(current)
    there = (said[1].told_from_here if said[1].elsewhere else said[1].applications) if said else ()
    strays = [name for name in sorted(there) if name not in book] if current.gateway else []
    found = [f"{name}: Ray Serve has it, and the book does not{_unwritten(current, name)}" for name in strays]
    if not names:
        return found
    if said is None:
        silent = f"; these hosts did not answer: {', '.join(current.unreachable)}" if current.unreachable else ""
        return [f"No host that answered has the Ray cluster's head{silent}: what Ray serves is not known"]
    host, serve = said
    if serve.error:
        return [
            f"{host.name}: {serve.error}: what Ray serves is not known. Replicas go on serving for a while without it: "
            "onprem-llm cluster status"
        ]
    for name in names:
        app = serve.applications.get(name)
        if app is None:
            found.append(
                f"{name}: Ray Serve does not have it: its head was started anew and forgot, or a person took it away"
                f"{', as each PUT of Serve does that leaves it out' if serve.elsewhere else ''}. "
                f"Tell it again: onprem-llm deploy, with {name}'s model.yaml or another one's on Ray"
            )
        else:
            found += _unwell(name, app)
    return found


def _unwritten(current: Current, name: str) -> str:
    if current.gateway and current.gateway.lock:  # the book is written once it serves
        return " yet: the run that holds the lock may be deploying it. Look again when that has ended"
    return f": its first deploy was cut off. Deploy it again, or: onprem-llm down {name}"


def _unwell(name: str, app: ServeApplication) -> list[str]:
    if app.status == RUNNING:
        return []
    parts = [f"{part}: {one.message}" for part, one in app.parts.items() if one.message and one.status != "HEALTHY"]
    why = "; ".join(parts) or app.message
    return [f"{name}: Ray says {app.status}{f', {why}' if why else ''}: onprem-llm logs {name}"]
