"""Which hosts a gang goes to: all of them or none, with equal shares of GPUs of one model."""

from collections.abc import Sequence, Set

from onprem_llm.book_state import BookEntry
from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.no_room import NoRoomError, verdict_table
from onprem_llm.planning.offers import Verdict, may_run_on, model_accepted
from onprem_llm.planning.placement import Placement, Placer, homes, is_lost
from onprem_llm.rendering.ranks import rank_project, replica_of
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.gangs import gang_problem
from onprem_llm.spec.network_facts import bad_pairs, joined_well


def share_of(deployment: Deployment, nodes: int) -> Deployment:
    """Return the deployment as one of its replica's hosts carries it: an equal share of the GPUs."""
    gpus = deployment.resources.gpus
    if nodes == 1 or gpus == "all":
        return deployment
    resources = deployment.resources.model_copy(update={"gpus": gpus // nodes})
    return deployment.model_copy(update={"resources": resources})


def nodes_of(deployment: Deployment, current: Current, entry: BookEntry | None, *, touched: bool) -> int:
    """Return over how many hosts a replica goes: as model.yaml says, as it stands, else as few as can carry it.

    What can carry it is judged by the GPUs that hosts have, whoever uses them now: one host, wherever one has enough.
    `touched`: the change is about what decides that.
    """
    nodes, gpus = deployment.resources.nodes, deployment.resources.gpus
    if nodes != "auto":
        return nodes
    if gpus == "all" or gpus < 2:
        return 1
    standing = {len(at.hosts) for at in entry.replicas.values()} if entry and not touched else set()
    if len(standing) == 1:
        return standing.pop()
    sizes = [size for size in range(1, gpus + 1) if _can_be_cut(deployment, size)]
    hosts = [host for host in current.hosts if may_run_on(deployment, host) and host.name not in current.marks]
    return next((size for size in sizes if _carried(deployment, gpus // size, hosts) >= size), 1)


def _can_be_cut(deployment: Deployment, size: int) -> bool:
    return size == 1 or gang_problem(size, deployment.resources.gpus, deployment.engine.engine_args) is None


def _carried(deployment: Deployment, share: int, hosts: Sequence[HostState]) -> int:
    """Return how many hosts have so many GPUs of the same model."""
    found: dict[str, int] = {}
    for host in hosts:
        names = [gpu.name for gpu in host.gpus if model_accepted(gpu, deployment.resources.gpu_models)]
        for name in set(names):
            found[name] = found.get(name, 0) + (names.count(name) >= share)
    return max(found.values(), default=0)


def place_gang(placer: Placer, whole: Deployment, index: int, nodes: int) -> Placement:
    """Place all ranks of a gang: where they are if all can stay, else on hosts that have room for it, all or none.

    The placer's deployment is the share of one host. Raises UnreachableError where a rank may run on a host that does
    not answer, InvalidError with a table of the hosts where too few can carry a share.
    """
    leader = f"{whole.name}-{index}"
    _refuse_silent(placer, leader)
    staying = _staying(placer, leader, nodes)
    if staying is not None:
        return _taken(placer, leader, index, staying)
    for host in _having(placer.current, leader):
        placer.refuse_blind_move(leader, [host])
    # A slow line is better than nobody who answers: the plan names it.
    chosen, verdicts = _chosen(placer, leader, nodes, placer.current.hosts, over_bad_lines=True)
    if chosen is None:
        raise _no_room(placer, whole, leader, nodes, verdicts)
    placer.passed_over = {verdict.host.name: verdict.why for verdict in verdicts if verdict.why}
    return _taken(placer, leader, index, chosen)


def place_gang_beside(
    placer: Placer, whole: Deployment, index: int, nodes: int, weights: str, staged: Sequence[str]
) -> Placement | None:
    """Place a gang that takes another one's place, where the weights are or are sent anyway; None without room."""
    leader = f"{whole.name}-{index}"
    near = [host for host in placer.current.hosts if weights in host.weights or host.name in staged]
    # The gang that stands has its own lines: no other one is worth a bad one.
    chosen, _ = _chosen(placer, leader, nodes, near, over_bad_lines=False)
    return None if chosen is None else _taken(placer, leader, index, chosen)


def why_gang_not(placer: Placer, leader: str, nodes: int) -> str | None:
    """Say why a gang that runs cannot go on where it is; None where it can, or where it has another size by now."""
    for rank in range(nodes):
        project = rank_project(leader, rank)
        if any(project in host.projects for host in placer.current.hosts) and (why := placer.why_not(project)):
            return why
    return None


def _refuse_silent(placer: Placer, leader: str) -> None:
    silent = [
        host
        for host in placer.gangs.get(leader, ())
        if host in placer.current.unreachable and not is_lost(placer.current, host)
    ]
    if silent:
        raise UnreachableError(
            f"a part of {leader} may run on a host that did not answer: {', '.join(silent)}",
            hint="it is not started a second time elsewhere: bring the host back and run this again, "
            "or declare the host lost: onprem-llm host remove HOST --lost",
        )


def _having(current: Current, leader: str) -> list[HostState]:
    return [host for host in current.hosts if _own_project(host, leader) is not None]


def _own_project(host: HostState, leader: str) -> str | None:
    """Return the project that a host has of a gang; None where it has none."""
    return next((name for name in sorted(host.projects) if replica_of(name) == leader), None)


def _staying(placer: Placer, leader: str, nodes: int) -> list[Verdict] | None:
    recorded = placer.gangs.get(leader, ())
    found: list[Verdict] = []
    for rank in range(nodes):
        project = rank_project(leader, rank)
        having = homes(project, placer.current, recorded[rank] if rank < len(recorded) else None)
        here = next((one for host in having if (one := placer.consider(host, project)).why is None), None)
        if here is None:
            return None
        found.append(here)
    alike = len({verdict.gpus[0].name if verdict.gpus else "" for verdict in found}) == 1
    return found if alike and len({verdict.host.name for verdict in found}) == nodes else None


def _chosen(
    placer: Placer, leader: str, nodes: int, hosts: Sequence[HostState], *, over_bad_lines: bool
) -> tuple[list[Verdict] | None, list[Verdict]]:
    """Return the best hosts that are as many as it takes and alike, and what was said of each.

    `over_bad_lines`: where there are none with good lines between them, those that there are.
    """
    verdicts = [placer.consider(host, _own_project(host, leader) or leader) for host in hosts]
    fitting = [verdict for verdict in verdicts if verdict.why is None]
    fitting.sort(key=lambda one: (_own_project(one.host, leader) is None, placer.preference(one)))
    bad = bad_pairs(placer.current.network)
    best = _together(fitting, nodes, bad)
    chosen = best or (_together(fitting, nodes, frozenset()) if bad and over_bad_lines else None)
    return (_in_order(chosen, leader) if chosen else None), verdicts


def _together(fitting: Sequence[Verdict], nodes: int, bad: Set[frozenset[str]]) -> list[Verdict] | None:
    """Return the first hosts that are as many as it takes, alike, and with no bad line between two of them."""
    alike: dict[str, list[tuple[int, Verdict]]] = {}
    for place, verdict in enumerate(fitting):
        alike.setdefault(verdict.gpus[0].name if verdict.gpus else "", []).append((place, verdict))
    enough = sorted((group for group in alike.values() if len(group) >= nodes), key=lambda one: one[nodes - 1][0])
    for group in enough:
        if found := joined_well([verdict for _, verdict in group], lambda one: one.host.name, nodes, bad):
            return found
    return None


def _in_order(group: list[Verdict], leader: str) -> list[Verdict]:
    """Put hosts that have a rank of the gang in its place, as far as there are such, the others around them."""
    ranks = {rank_project(leader, rank): rank for rank in range(len(group))}
    order: list[Verdict | None] = [None] * len(group)
    rest = []
    for verdict in group:
        rank = ranks.get(_own_project(verdict.host, leader) or "")
        if rank is None or order[rank] is not None:
            rest.append(verdict)
        else:
            order[rank] = verdict
    others = iter(rest)
    return [verdict or next(others) for verdict in order]


def _taken(placer: Placer, leader: str, index: int, verdicts: Sequence[Verdict]) -> Placement:
    ranks = [
        placer.take(Placement(rank_project(leader, rank), index, verdict.host, verdict.gpus))
        for rank, verdict in enumerate(verdicts)
    ]
    first, *others = ranks
    return Placement(first.project, index, first.host, first.gpus, tuple(others))


def _no_room(placer: Placer, whole: Deployment, leader: str, nodes: int, verdicts: Sequence[Verdict]) -> InvalidError:
    share, gpus = placer.deployment.resources.gpus, whole.resources.gpus
    need = f"{share} GPUs of one model on each ({gpus} in all)" if share else "one host for each part"
    kinds = {verdict.gpus[0].name for verdict in verdicts if verdict.why is None and verdict.gpus}
    unlike = f"; those that have room have unlike GPUs: {', '.join(sorted(kinds))}" if len(kinds) > 1 else ""
    return NoRoomError(
        f"no {nodes} hosts can carry {leader} together: it needs {need}{unlike}",
        details=verdict_table(verdicts),
        hint="change resources (nodes, gpus, gpu_models, hosts) in model.yaml, or free what holds the GPUs",
    )
