"""What the plan and the lock ask of the table, before anything is pulled."""

from collections.abc import Iterable, Iterator, Sequence

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import HostState
from onprem_llm.planning.compatibility.judging import Asked, Judged, asked_of
from onprem_llm.planning.compatibility.machines import machine_of
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.planning.no_room import NoRoomError
from onprem_llm.planning.replicas import PlannedReplica, serves
from onprem_llm.planning.types import WantedDeployment
from onprem_llm.spec.deployment import Deployment


def check_replicas(item: WantedDeployment, replicas: Sequence[PlannedReplica]) -> tuple[str, ...]:
    """Return warnings; NoRoomError where an engine that is to start could not run where it is.

    New replicas are not placed there; what was there before may start anew. What serves is believed to run.
    """
    asked = asked_of(item.deployment, item.files)
    if asked is None:
        return ()
    starting = [one for one in replicas if one.outcome.change.action not in {"keep", "wait"}]
    judged = [_of_replica(asked, one) for one in starting]
    if any(one.refused for one in judged):
        refusal = asked.refusal(judged)
        raise NoRoomError(refusal.message, details=refusal.details, hint=refusal.hint)
    return (*_of_each(judged), *_mixed(replicas))


def check_hosts(deployment: Deployment, files: ModelFiles | None, hosts: Iterable[HostState]) -> tuple[str, ...]:
    """As check_replicas, of hosts where nothing is placed yet: InvalidError where none with enough GPUs can run it."""
    asked = asked_of(deployment, files)
    if asked is None:
        return ()
    judged = [one for host in hosts if (one := asked.of_host(host)) is not None]
    if judged and all(one.refused for one in judged):
        refusal = asked.refusal(judged)
        raise InvalidError(refusal.message, details=refusal.details, hint=refusal.hint)
    wrong = tuple(f"{one.host.name}: {one.refused}" for one in judged if one.refused)
    return (*wrong, *_of_each(one for one in judged if not one.refused))


def _of_replica(asked: Asked, replica: PlannedReplica) -> Judged:
    """Judge a replica with the GPUs that it is given; an image that serves there now is believed to run."""
    one = asked.of(replica.host, replica.placement.gpus)
    return one.without_image() if _proven(replica) else one


def _proven(replica: PlannedReplica) -> bool:
    """Tell whether this very image serves there now."""
    host, image = replica.host, replica.image
    project = host.projects.get(replica.project)
    names = {image.reference, image.id}
    return project is not None and serves(host, replica.project) and any(c.image in names for c in project.containers)


def _of_each(judged: Iterable[Judged]) -> Iterator[str]:
    """Say each warning once, with the hosts that it is about."""
    said: dict[str, list[str]] = {}
    for one in judged:
        for text in one.verdict.warnings:
            said.setdefault(text, []).append(one.host.name)
    for text, hosts in said.items():
        yield f"{', '.join(dict.fromkeys(hosts))}: {text}"


def _mixed(replicas: Sequence[PlannedReplica]) -> Iterator[str]:
    for replica in replicas:
        kinds = machine_of(replica.host, replica.placement.gpus).kinds
        if len(kinds) > 1:
            names = ", ".join(map(str, kinds))
            yield f"{replica.host.name} has {len(kinds)} kinds of GPU, and {replica.project} is given all: {names}"
