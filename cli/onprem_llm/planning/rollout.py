"""A change of replicas that nobody notices: new ones first, then wave after wave, each with the way back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onprem_llm.hosts import HostState
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gang_orders import lines_of, stop_step
from onprem_llm.planning.guards import firewall_without
from onprem_llm.planning.removal import removal
from onprem_llm.planning.replica_orders import ProjectState, empty_order, project_order, readiness
from onprem_llm.planning.replicas import PlannedReplica, Revision, runs
from onprem_llm.planning.rotation import back_step, route_step
from onprem_llm.planning.standing import Standing
from onprem_llm.planning.types import Order, Step


@dataclass(frozen=True, slots=True)
class Rollout:
    """The steps before the gateway's last word, and what stands behind it.

    `start` brings up what serves nobody yet, `waves` replace what serves; `leave` drains what goes, `remove` takes it
    away.
    """

    start: Step | None
    waves: tuple[Step, ...]
    leave: Step | None
    remove: Step | None


@dataclass(slots=True)
class Crew:
    """Who takes part: the change, its replicas, the gateways, and what guards the hosts."""

    change: Revision
    fleet: Fleet
    gateways: Sequence[HostState]
    guards: Mapping[str, Order] = field(default_factory=dict)  # host -> firewall and certificate of an apply order
    routed: Collection[str] = ()  # deployment/project that the gateways know in the midst of the change
    between: Mapping[int, Step] = field(default_factory=dict)  # number of a wave -> tells where its replicas listen now
    renamed: Step | None = None  # the gateway asks for another served name: tells it of the old one, for the way back

    @property
    def empty_order(self) -> dict[str, object]:
        """An order that brings the deployment's key and starts nothing."""
        return empty_order([self.change.deployment.name], self.gateways[0])


def plan_rollout(crew: Crew) -> Rollout:
    """Return the steps that bring the fleet about."""
    return Rollout(_start(crew), tuple(_waves(crew)), _leave(crew), _remove(crew))


def largest_gap(crew: Crew) -> int:
    """Return how many of the replicas that serve are missing at the worst moment."""
    return max((len(wave) for wave in waves_of(crew.change, crew.fleet)), default=0)


def waves_of(change: Revision, fleet: Fleet) -> list[Sequence[PlannedReplica]]:
    """Return the replicas that are taken away for a while, those together that are away together."""
    # Spares stand in for what is away; those that leave go on serving until the waves are through.
    size = max(1, change.deployment.update.max_unavailable + fleet.spares - len(fleet.away))
    # Nobody misses those that are down: they go first, all at once, and are there when others go. Where none is up they
    # may be back any moment.
    up = [replica for replica in fleet.replaced if replica.project not in fleet.down] or fleet.replaced
    down = [replica for replica in fleet.replaced if replica not in up]
    return [*([down] if down else []), *(up[at : at + size] for at in range(0, len(up), size))]


def _start(crew: Crew) -> Step | None:
    starting = [
        r for r in crew.fleet.replicas if not r.replaced and (r.outcome.needed or not (r.off or _proven(crew, r)))
    ]
    name = crew.change.deployment.name
    orders = {host: dict(order) for host, order in _apply_orders(crew, starting).items()}
    for host, guard in crew.guards.items():
        orders[host] = {**orders.get(host, crew.empty_order), **guard}
    if not orders:
        return None
    return Step("apply", f"Start {name}", orders, _start_undo(crew, starting))


def _start_undo(crew: Crew, starting: Sequence[PlannedReplica]) -> tuple[Step, ...]:
    """What is new goes, what ran out of rotation (on a drained host) or was on its way runs as before."""
    if crew.change.deployment.name not in crew.change.current.book:
        # A first deploy: what it started stays to be looked at, and no part of a gang goes on without the others.
        gangs = [rank for replica in starting if replica.others for rank in replica.ranks]
        return (stop_step(crew.change.site, gangs),) if gangs else ()
    ranks = [rank for replica in starting for rank in replica.ranks]
    changed = [
        r for r in ranks if r.outcome.change.action in {"update", "restart"} and (r.off or runs(r.host, r.project))
    ]
    return (
        *_removal_of_new(crew, starting),
        *([_restore_step(crew, changed)] if changed else []),
    )


def _removal_of_new(crew: Crew, replicas: Sequence[PlannedReplica]) -> tuple[Step, ...]:
    """Take away what was not there before: replicas, and parts of a gang that goes on to another host."""
    ranks = [rank for replica in replicas for rank in replica.ranks]
    fresh = [(r.host.name, r.project) for r in ranks if r.outcome.change.action == "create"]
    return (_remove_step(crew, fresh, "Remove the new replicas"),) if fresh else ()


def _proven(crew: Crew, replica: PlannedReplica) -> bool:
    """Tell whether the book has this replica: it has answered a real request. Others are asked, though they run."""
    entry = crew.change.current.book.get(crew.change.deployment.name)
    at = entry.replicas.get(replica.project) if entry else None
    if any(reason.startswith(("readiness", "timeouts.readiness")) for reason in crew.change.why):
        return False  # it has answered another request than is asked for now
    hosts = tuple(rank.host.name for rank in replica.ranks)
    return at is not None and (at.hosts, at.revision) == (hosts, replica.revision)


def _waves(crew: Crew) -> list[Step]:
    waves = waves_of(crew.change, crew.fleet)
    return [step for number, wave in enumerate(waves, 1) for step in _wave(crew, wave, number, len(waves))]


def _wave(crew: Crew, wave: Sequence[PlannedReplica], number: int, of: int) -> list[Step]:
    names = ", ".join(replica.project for replica in wave)
    servers = _routed(crew, [replica.project for replica in wave])
    count = f" ({number} of {of})" if of > 1 else ""
    drain, back = _route(crew, f"Drain {names}", drain=servers), _route(crew, f"Return {names}", ready=servers)
    undo = (*_removal_of_new(crew, wave), _restore_step(crew, wave))
    apply = Step("apply", f"Replace {names}{count}", _apply_orders(crew, wave), undo)
    if drain is None or back is None:
        return [apply]
    again = Step(drain.kind, f"Drain {names} again", drain.orders)
    return [
        Step(drain.kind, drain.title, drain.orders, _as_before(crew, names, servers)),
        apply,
        *([crew.between[number]] if number in crew.between else []),
        replace(back, undo=(again,)),
    ]


def _as_before(crew: Crew, names: str, servers: Sequence[str]) -> tuple[Step, ...]:
    """Let old replicas come back into rotation, at a gateway that asks them for the name that they have."""
    back = back_step(crew.gateways, f"Put {names} back", servers)
    return tuple(step for step in (crew.renamed, back) if step is not None)


def _route(crew: Crew, title: str, *, drain: Sequence[str] = (), ready: Sequence[str] = ()) -> Step | None:
    wait = crew.change.deployment.update.drain_timeout
    return route_step(crew.gateways, title, drain=drain, ready=ready, wait=wait)


def _routed(crew: Crew, projects: Sequence[str]) -> list[str]:
    """Name those that the gateways know: nobody routes to the others."""
    servers = [f"{crew.change.deployment.name}/{project}" for project in projects]
    return [server for server in servers if server in crew.routed]


def _leave(crew: Crew) -> Step | None:
    staying = {replica.project for replica in crew.fleet.replicas}
    going = sorted(s.project for s in crew.fleet.leaving if s.serving and s.project not in staying)
    servers = _routed(crew, going)
    step = _route(crew, f"Drain {', '.join(going)}", drain=servers)
    if step is None:
        return None
    return replace(step, undo=_as_before(crew, ", ".join(going), servers))


def _remove(crew: Crew) -> Step | None:
    leaving: Sequence[Standing] = crew.fleet.leaving
    if not leaving:
        return None
    step = _remove_step(crew, [(s.host.name, s.project) for s in leaving], "Remove what is not wanted any more")
    orders = {}
    for name, host in {s.host.name: s.host for s in leaving}.items():
        gone = {s.project for s in leaving if s.host.name == name}
        staying = [replica.claim for replica in crew.fleet.replicas if replica.host.name == name]
        wall = firewall_without(host, crew.change.current, gone, staying, crew.fleet)
        orders[name] = {**step.orders[name], **wall}
    return replace(step, orders=orders)


def _remove_step(crew: Crew, projects: Sequence[tuple[str, str]], title: str) -> Step:
    going: dict[str, list[str]] = {}
    for host, project in projects:
        going.setdefault(host, []).append(project)
    return Step("remove", title, {host: removal(crew.change.site, names) for host, names in going.items()})


def _apply_orders(crew: Crew, replicas: Sequence[PlannedReplica]) -> dict[str, Order]:
    orders: dict[str, dict[str, object]] = {}
    projects: dict[str, list[object]] = {}
    for replica in [rank for one in replicas for rank in one.ranks]:
        host = replica.host.name
        orders.setdefault(host, crew.empty_order)["projects"] = projects.setdefault(host, [])
        order = project_order(
            crew.change.site,
            replica.outcome,
            replica.secrets,
            sorted(crew.change.deployment.secret_env),
            wait=crew.change.deployment.timeouts.start,
            readiness=_readiness(crew, replica) if replica.answers else None,
            state=_state_of(replica),
        )
        # One that goes on as it is must not be stopped: requests come to it, and it takes minutes to start.
        anew = replica.outcome.change.action not in {"keep", "wait"}
        projects[host].append({**order, "anew": anew} if replica.rank else order)
    for host, lines in lines_of(replicas, crew.gateways).items():
        orders.setdefault(host, crew.empty_order)["gang_lines"] = lines
    if orders:
        # The first gateway host makes the key, so it takes part even where it starts nothing.
        orders.setdefault(crew.gateways[0].name, crew.empty_order)
    return dict(orders)


def _state_of(replica: PlannedReplica) -> ProjectState:
    """Return what becomes of a project: a part of a gang comes to health with the others alone."""
    return "made" if replica.off else "started" if replica.rank else "healthy"


def _readiness(crew: Crew, replica: PlannedReplica) -> dict[str, object]:
    return readiness(crew.change.deployment, replica.claim, replica.host, tls=crew.change.engine_tls)


def _restore_step(crew: Crew, replicas: Sequence[PlannedReplica]) -> Step:
    """Name what is there now: what was kept of an earlier change must not come back."""
    orders: dict[str, dict[str, list[object]]] = {}
    for replica in [rank for one in replicas for rank in one.ranks if rank.project in rank.host.projects]:
        order = orders.setdefault(replica.host.name, {"projects": []})
        there = replica.host.projects[replica.project]
        order["projects"].append(
            {
                "name": replica.project,
                "path": crew.change.site.project_path(replica.project),
                "files": dict(there.files),
                "secrets": there.secrets_digest,
                "wait": crew.change.deployment.timeouts.start,
                **({"state": "started"} if there.label("gang") else {"state": "made"} if replica.off else {}),
            }
        )
    return Step("restore", f"Put the old {', '.join(r.project for r in replicas)} back", orders)
