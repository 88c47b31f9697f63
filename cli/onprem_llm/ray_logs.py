"""Where the words of replicas on Ray are: files of their processes, in the container of the node that has them."""

from collections.abc import Mapping
from dataclasses import dataclass

from onprem_llm.book_state import BookEntry
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.hosts import Current, HostState, Project
from onprem_llm.ray_running import node_host, ray_deployments, serve_of
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.resources import PACKAGE
from onprem_llm.serve_state import ENGINE_PART, Elsewhere, ServeApplication, ServeReplica

# Ray writes them below /tmp of the container, each with the worker's id in its name. They are read through the
# container's own root: what `docker exec` began would go on there after our end.
SCRIPT = r"""
pid=$(docker inspect -f '{{.State.Pid}}' "$1") && [ "$pid" != 0 ] || { echo "the node ($1) does not run" >&2; exit 1; }
root=/proc/$pid/root
cd "$root$(readlink "$root/tmp/ray/session_latest")/logs" || exit 1
set -- "$2" "$4" worker-"$3"-*
[ -e "$3" ] || { echo "Ray has no log of it any more: its node was started anew since" >&2; exit 1; }
lines=$1 follow=$2; shift 2
exec tail -q -n "$lines" $follow "$@"
"""


@dataclass(frozen=True)
class RayLog:
    """A replica's log: on which host, in which node's container, of which process."""

    host: HostState
    project: Project
    worker: str

    def argv(self, follow: bool, tail: int) -> list[str]:
        """Return the program that prints it on its host."""
        container = next((one.name for one in self.project.containers), self.project.name)
        return ["sh", "-c", SCRIPT, "sh", container, str(tail), self.worker, "-F" if follow else ""]


@dataclass(frozen=True)
class LogElsewhere:
    """A replica's log on a cluster that somebody else runs: who asks it, and of which process on which node."""

    host: HostState
    cluster: Elsewhere
    node: str
    worker: str

    def argv(self, follow: bool, tail: int) -> list[str]:
        """Return the program that prints it on its host."""
        program = (PACKAGE / "ray_log_reader.py").read_text(encoding="utf-8")
        order = (self.cluster.address, self.cluster.token_file or "", self.node, self.worker, str(tail))
        return ["python3", "-c", program, *order, "follow" if follow else ""]


def ray_logs(current: Current, book: Mapping[str, BookEntry], name: str) -> dict[str, RayLog | LogElsewhere]:
    """Return label -> log of a deployment's replicas on Ray, or of one of them (`tiny-x1y2z3`); {} where it is none.

    Of a deployment of which none runs those that ended are shown, too: they say why.
    """
    mine = _deployment(book, name)
    if mine is None:
        return {}
    said = serve_of(current)
    if said is None or said[1].error:
        why = f"{said[0].name}: {said[1].error}" if said else "no host that answered has the Ray cluster's head"
        raise OnpremError(f"{why}: where {mine}'s replicas are is not known", hint="onprem-llm cluster status")
    app = said[1].applications.get(mine)
    wanted = _asked(app, name.removeprefix(mine).removeprefix("-")) if app else []
    found = {f"{mine}-{one.id}": log for one in wanted if (log := _log(current, one)) is not None}
    if not found:
        status = f"Ray says {app.status}" if app else "Ray Serve does not have it"
        have = ", ".join(f"{mine}-{one.id}" for one in app.engines) if app else ""
        raise InvalidError(
            f"{name} has no log on the hosts that answered: {status}" + (f"; its replicas: {have}" if have else ""),
            hint="onprem-llm status",
        )
    return found


def _deployment(book: Mapping[str, BookEntry], name: str) -> str | None:
    """Return the deployment on Ray that has this name, or else the one whose replica it may be."""
    known = ray_deployments(book)
    if name in book:
        return name if name in known else None
    return max((one for one in known if name.startswith(f"{one}-")), key=len, default=None)


def _asked(app: ServeApplication, replica: str) -> list[ServeReplica]:
    """Return the replica of that id, any part's; without one, the engines."""
    dead = [one for part in app.parts.values() for one in part.dead]
    if replica:
        return [one for one in (*app.replicas, *dead) if one.id == replica]
    return [*([] if app.ready else [one for one in dead if one.part.startswith(ENGINE_PART)]), *app.engines]


def _log(current: Current, replica: ServeReplica) -> RayLog | LogElsewhere | None:
    said = serve_of(current)
    if said is not None and said[1].elsewhere is not None:
        placed = replica.address is not None and replica.worker is not None
        return LogElsewhere(said[0], said[1].elsewhere, replica.address or "", replica.worker or "") if placed else None
    host = node_host(current, replica.address)
    if host is None or replica.worker is None:
        return None
    project = next(host.projects[name] for name in (HEAD_PROJECT, WORKER_PROJECT) if name in host.projects)
    return RayLog(host, project, replica.worker)
