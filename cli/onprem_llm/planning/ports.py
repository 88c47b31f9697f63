"""Which port of its host a replica is published on: its own so far, else the first that nobody has."""

from collections.abc import Iterable

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import Claim, collides, standing_claim
from onprem_llm.spec.deployment import Deployment

# Replicas of one deployment on one host lie this close together.
SPAN = 100


def choose_claim(
    deployment: Deployment,
    host: HostState,
    project: str,
    address: str,
    given: Iterable[Claim],
    leaving: set[str],
    *,
    moves: bool = False,
) -> Claim:
    """Return where `project` listens on `host`; `given` are the claims that this plan made there so far.

    A replica that stays keeps its port, unless model.yaml names another one now (`moves`). The first one of a host gets
    the port of model.yaml, and an error elsewhere if somebody else has it; those after it take the next free ones, and
    so does the first where model.yaml names no port.
    """
    wanted = range(deployment.port, min(deployment.port + SPAN, 65536))
    own = standing_claim(host, project)
    if own is not None and own.port in wanted and not moves:
        return Claim(project, address, own.port)
    siblings = [claim for claim in given if claim.project != project]
    siblings += [
        claim
        for name, other in host.projects.items()
        if name != project and other.label("deployment") == deployment.name and (claim := standing_claim(host, name))
    ]
    first = Claim(project, address, deployment.port)
    if "port" in deployment.model_fields_set and not any(collides(claim, first) for claim in siblings):
        return first
    others = [
        claim for name in host.projects if name != project and name not in leaving
        if (claim := standing_claim(host, name))
    ]  # fmt: skip
    sockets = [Claim("", listener.address, listener.port) for listener in host.listeners]
    for port in wanted:
        claim = Claim(project, address, port)
        if not any(collides(other, claim) for other in [*siblings, *others, *sockets]):
            return claim
    raise InvalidError(
        f"no port from {wanted.start} to {wanted.stop - 1} is free on {host.name} for {project}",
        hint="choose another port in model.yaml",
    )
