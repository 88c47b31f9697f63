"""A replica over several hosts: each rank rendered and compared, and what becomes of the gang as one."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace

from onprem_llm.errors import InvalidError
from onprem_llm.planning.addresses import Claim
from onprem_llm.planning.compatibility.images import read_tag
from onprem_llm.planning.compatibility.table import table
from onprem_llm.planning.gang_lines import choose_ports, meeting_of
from onprem_llm.planning.gang_rdma import Ports, ports_that_are_up, standing_ports
from onprem_llm.planning.placement import Placement
from onprem_llm.planning.places import place as place_of_image
from onprem_llm.planning.places import short
from onprem_llm.planning.replicas import PlannedReplica, Revision, plan_replica
from onprem_llm.planning.rotation import away
from onprem_llm.rendering.ranks import Rank
from onprem_llm.spec.deployment import Deployment


def check_multi_node(deployment: Deployment, nodes: int) -> None:
    """Raise InvalidError where an image's release cannot run one engine on several hosts."""
    tag, row = read_tag(deployment.engine.image), table().multi_node
    if nodes > 1 and tag is not None and tag.release < row.since:
        raise InvalidError(
            f"{deployment.engine.image} cannot run one replica on {nodes} hosts: vLLM knows that (--nnodes) from "
            f"v{row.since} on",
            hint=f"engine.image: use v{row.since} or newer; or let the replica fit on one host: onprem-llm fit "
            "MODEL_YAML",
        )


def plan_gang(
    change: Revision, placement: Placement, claim: Claim, given: Mapping[str, Collection[int]]
) -> PlannedReplica:
    """Render and compare all ranks; where one of them is to start anew, so are all.

    `claim`: where the first rank answers. `given`: host -> ports that this plan gave to other gangs there.
    """
    places = [replace(placement, others=()), *placement.others]
    ranks = _ranks(change, places, given)
    now, standing = ports_that_are_up(places), standing_ports(places)
    if change.deployment.resources.gpus == 0:
        now = standing = [()] * len(places)
    if standing is not None and standing != now:
        as_it_is = _planned_gang(change, claim, ranks, standing)
        # What starts anew takes what is up by now; for that alone nothing does.
        if all(one.outcome.change.action in {"keep", "wait"} for one in as_it_is.ranks):
            return as_it_is
    return _planned_gang(change, claim, ranks, now)


def _planned_gang(change: Revision, claim: Claim, places: list[tuple[Placement, Rank]], rdma: Ports) -> PlannedReplica:
    ranks = [(at, replace(rank, rdma=ports)) for (at, rank), ports in zip(places, rdma, strict=True)]
    apart = [_planned(change, at, claim, rank) for at, rank in ranks]
    _refuse_unlike_images(change.deployment.engine.image, apart)
    token = hashlib.sha256("".join(one.outcome.rendered.digest for one in apart).encode()).hexdigest()[:12]
    planned = [_planned(change, at, claim, rank.with_token(token)) for at, rank in ranks]
    return _together(change, planned)


def _ranks(
    change: Revision, places: list[Placement], given: Mapping[str, Collection[int]]
) -> list[tuple[Placement, Rank]]:
    meetings = [meeting_of(place.host) for place in places]
    hosts = [place.host for place in places]
    first = choose_ports(change.site.gang_ports, hosts, places[0].project, given)
    names = {place.project: at.address for place, at in zip(places, meetings, strict=True)}
    return [
        (place, Rank(number, len(places), meetings[0].address, at.address, at.interface, first, names=names))
        for number, (place, at) in enumerate(zip(places, meetings, strict=True))
    ]


def _planned(change: Revision, place: Placement, claim: Claim, rank: Rank) -> PlannedReplica:
    own = claim if rank.rank == 0 else Claim(place.project, rank.me, rank.first)
    return plan_replica(change, place, own, rank)


def _refuse_unlike_images(ref: str, ranks: list[PlannedReplica]) -> None:
    """Raise InvalidError where a tag that nothing can bring means one image on one host and another on the next."""
    found = {rank.host.name: place_of_image(rank.image.reference) for rank in ranks}
    first, *others = found
    unlike = [host for host in others if found[host] != found[first]]
    if not unlike:
        return
    where = ", ".join(f"{short(image)} on {host}" for host, image in found.items())
    raise InvalidError(
        f"{ranks[0].project} would run two images as one: {ref} is {where}",
        hint="put the right one's archive into the folder that onprem_llm_site.images_dir names, which brings it to "
        f"all; or take it from the host that has it: docker save {ref} | ssh {unlike[0]} sudo docker load",
    )


def _together(change: Revision, planned: list[PlannedReplica]) -> PlannedReplica:
    """Make one of the ranks: it serves as the first one does, and starts anew where any of them must."""
    out = any(away(one.host.name, change.current) for one in planned)
    serving = planned[0].serving and not out
    cause = next((one for one in planned if one.outcome.change.action in {"create", "update", "restart"}), None)
    if cause is not None:
        reasons = "; ".join(cause.outcome.change.reasons) or "it is not there"
        why = f"all of its gang start anew with {cause.project} on {cause.host.name}: {reasons}"
        planned = [_anew(one, why) for one in planned]
    planned = [replace(one, serving=serving) for one in planned]
    return replace(planned[0], others=tuple(planned[1:]))


def _anew(one: PlannedReplica, why: str) -> PlannedReplica:
    outcome = one.outcome
    if outcome.change.action not in {"keep", "wait"}:
        return one
    change = replace(outcome.change, action="restart", reasons=(why,))
    return replace(one, outcome=replace(outcome, change=change, recreate=True))
