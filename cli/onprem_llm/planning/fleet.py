"""All replicas of the deployment that is being changed: which stay, which are new, which leave."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from onprem_llm.errors import InvalidError
from onprem_llm.planning.addresses import Claim, bind_address
from onprem_llm.planning.fleet_places import Places
from onprem_llm.planning.gangs import plan_gang
from onprem_llm.planning.no_room import NoRoomError
from onprem_llm.planning.placement import Placement, check_names, is_lost
from onprem_llm.planning.ports import choose_claim
from onprem_llm.planning.replicas import PlannedReplica, Revision, plan_replica
from onprem_llm.planning.revisions import only_counts
from onprem_llm.planning.rotation import away, is_down, is_down_everywhere, is_up
from onprem_llm.planning.standing import Standing, index_of, standing_of, unused
from onprem_llm.rendering.ranks import replica_of
from onprem_llm.spec.deployment import parse_deployment


@dataclass(frozen=True, slots=True)
class Fleet:
    """The replicas that are to be, those that leave, and those on hosts that are not seen, which are left alone.

    `away` get no requests, whatever this change does: they are on drained or silent hosts, or down and not touched.
    `down` get none until they are replaced. `untouched` serve on: --limit leaves their hosts out.
    """

    replicas: tuple[PlannedReplica, ...]
    leaving: tuple[Standing, ...] = ()
    silent: Mapping[str, int] = field(default_factory=dict)  # project -> the revision that it is let in with
    passed_over: Mapping[str, str] = field(default_factory=dict)  # host -> why no new replica went there
    spares: int = 0  # how many of the new ones take the place of one that serves until they do
    giving_way: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # leaves once another one answers -> why
    away: Mapping[str, str] = field(default_factory=dict)  # project -> host
    untouched: tuple[str, ...] = ()
    down: frozenset[str] = frozenset()
    tight: tuple[str, ...] = ()  # warnings of replicas that may not fit
    off: frozenset[str] = frozenset()  # by their schedule: they stay stopped, and nobody misses them
    forgotten: tuple[str, ...] = ()  # on silent hosts, and not wanted any more: they leave the book

    @property
    def in_rotation(self) -> int:
        """How many get requests when none is being replaced; new ones and those that do not serve are started first."""
        staying_on = sum(standing.routed for standing in self.leaving)
        out = {*self.away, *self.off}
        return sum(replica.project not in out for replica in self.replicas) + staying_on + len(self.untouched)

    @property
    def projects(self) -> tuple[PlannedReplica, ...]:
        """All projects of all replicas: each rank of those over several hosts."""
        return tuple(rank for replica in self.replicas for rank in replica.ranks)

    @property
    def replaced(self) -> tuple[PlannedReplica, ...]:
        """Those that serve and must be drained before they are changed."""
        return tuple(r for r in self.replicas if r.replaced)


def plan_fleet(change: Revision) -> Fleet:
    """Choose, place, render and compare every replica; InvalidError when the hosts cannot carry them."""
    return _Builder(change).build()


class _Builder:
    def __init__(self, change: Revision) -> None:
        self.change = change
        self.deployment, self.current = change.deployment, change.current
        check_names(self.deployment, self.current)
        entry = self.current.book.get(self.deployment.name)
        self.recorded = dict(entry.replicas) if entry else {}
        self.places = Places(change, entry)
        self.unseen = tuple(project for project, at in self.recorded.items() if any(map(self._hidden, at.hosts)))
        self.untouched = tuple(p for p in self.unseen if self._goes_on(p))
        self.silent: tuple[str, ...] = self.unseen  # those that stay
        self.standing = standing_of(self.deployment.name, self.current)
        self.claims: dict[str, list[Claim]] = {}
        self.gang_ports: dict[str, set[int]] = {}
        self.giving_way: dict[str, tuple[str, ...]] = {}

    def build(self) -> Fleet:
        kept, fresh = self._indices()
        placed = self._placed([*kept, *fresh])
        replicas = [self._planned(placement) for placement in placed]
        replicas, spares = self._with_spares(replicas)
        replicas.sort(key=lambda replica: replica.placement.index)
        staying = {(rank.host.name, rank.project) for replica in replicas for rank in replica.ranks}
        leaving = tuple(s for s in self.standing if (s.host.name, s.project) not in staying and not self._waits(s))
        silent = {project: self._silent_revision(project, replicas) for project in self.silent}
        return Fleet(
            tuple(replicas),
            leaving,
            silent,
            dict(self.places.passed_over),
            spares,
            self.giving_way,
            away={replica.project: replica.host.name for replica in replicas if self._away(replica)}
            | {project: self.recorded[project].host for project in silent if project not in self.untouched},
            untouched=tuple(project for project in silent if project in self.untouched),
            down=frozenset(r.project for r in replicas if r.replaced and self._missed_by_nobody(r)),
            tight=tuple(text for replica in replicas if (text := self.places.tight(replica))),
            off=frozenset(replica.project for replica in replicas if replica.off),
            forgotten=tuple(project for project in self.unseen if project not in silent),
        )

    def _away(self, replica: PlannedReplica) -> bool:
        left_down = replica.serving and not replica.replaced and is_down(self._server(replica), self.current)
        return left_down or any(away(rank.host.name, self.current) for rank in replica.ranks)

    def _missed_by_nobody(self, replica: PlannedReplica) -> bool:
        return is_down_everywhere(self._server(replica), self.current)

    def _server(self, replica: PlannedReplica) -> str:
        return f"{self.deployment.name}/{replica.project}"

    def _placed(self, indices: list[int]) -> list[Placement]:
        try:
            return [self.places.place(index) for index in indices]
        except NoRoomError as error:
            name, entry = self.deployment.name, self.current.book.get(self.deployment.name)
            before = parse_deployment(entry.model_yaml, f"the book's {name}") if entry else self.deployment
            if before.resources.gpus == self.deployment.resources.gpus or len(self.standing) < 2:
                raise
            # Its own replicas hold GPUs that those that are to be need: some go before those come.
            fewer = min(self.deployment.slots, len(self.standing) - 1)
            hint = f"its own replicas may hold the GPUs: onprem-llm scale {name} --replicas {fewer}, then this again"
            raise NoRoomError(error.message, details=error.details, hint=f"{hint}; or {error.hint}") from error

    def _hidden(self, host: str) -> bool:
        return host in self.current.unreachable and not is_lost(self.current, host)

    def _waits(self, standing: Standing) -> bool:
        """Tell whether this is a part of a gang of which another part is out of sight: nothing is done to it."""
        at = self.recorded.get(replica_of(standing.project))
        gang = at.hosts if at is not None and at.members else ()
        return replica_of(standing.project) in self.silent and standing.host.name in gang

    def _silent_revision(self, project: str, replicas: list[PlannedReplica]) -> int:
        """Say which revision a replica out of sight has to have to get requests.

        Its own so far while that is still wanted; else the new one, which it gets once its host is back. One that was
        left out on purpose serves on as it is.
        """
        so_far = self.recorded[project].revision
        if set(self.recorded[project].hosts) & set(self.current.left_out):
            return so_far
        wanted = {replica.revision for replica in replicas}
        return so_far if so_far in wanted or only_counts(self.change.why) else self.change.revision

    def _indices(self) -> tuple[list[int], list[int]]:
        """Return the indices that stay and those that are new.

        A replica that serves and cannot stay where it is gets another index: it goes once that one answers.
        """
        homeless = {s.project: why for s in self.standing if s.serving and not s.rank and (why := self._why_not(s))}
        there = {i for s in self.standing if (i := index_of(s.project, self.deployment.name)) is not None}
        stay = [i for i in sorted(there) if f"{self.deployment.name}-{i}" not in {*homeless, *self.unseen}]
        self.silent = self._silent_that_stay()
        wanted = self.deployment.slots - len(self.silent)
        used = there | self._unseen_indices()
        kept = sorted(sorted(stay, key=self._rank)[: max(wanted, 0)])
        fresh = unused(used, max(wanted - len(kept), 0))
        self.giving_way = {project: (why,) for project, why in sorted(homeless.items())[: len(fresh)]}
        return kept, fresh

    def _silent_that_stay(self) -> tuple[str, ...]:
        """Leave replicas of silent hosts as many as are wanted beside those that are known to serve, or can."""
        seen = {s.project for s in self.standing if s.belongs and not s.rank and s.project not in self.unseen}
        room = max(0, self.deployment.slots - len(seen) - len(self.untouched))
        silent = [project for project in self.unseen if project not in self.untouched]
        return (*self.untouched[: self.deployment.slots], *silent[:room])

    def _why_not(self, standing: Standing) -> str | None:
        if standing.project in self.unseen:
            return None
        return self.places.why_not(standing.project)

    def _goes_on(self, project: str) -> bool:
        left_out = bool(set(self.recorded[project].hosts) & set(self.current.left_out))
        return left_out and is_up(f"{self.deployment.name}/{project}", self.current)

    def _unseen_indices(self) -> set[int]:
        return {i for p in self.unseen if (i := index_of(p, self.deployment.name)) is not None}

    def _rank(self, index: int) -> tuple[bool, bool, bool, int]:
        """Say who is kept first: those that get requests, then those that can, those of the book, the first numbers."""
        named = [s for s in self.standing if s.project == f"{self.deployment.name}-{index}"]
        drained = all(away(s.host.name, self.current) for s in named)
        return (not any(s.routed for s in named), drained, not any(s.belongs for s in named), index)

    def _planned(self, placement: Placement) -> PlannedReplica:
        host = placement.host
        address = bind_address(self.deployment.listen, host, self.deployment.name)
        given = self.claims.setdefault(host.name, [])
        gone = {s.project for s in self.standing if s.host.name == host.name and not s.serving}
        moves = any(reason.startswith("port:") for reason in self.change.why)
        claim = choose_claim(self.deployment, host, placement.project, address, given, gone, moves=moves)
        given.append(claim)
        if not placement.others:
            return plan_replica(self.change, placement, claim)
        gang = plan_gang(self.change, placement, claim, self.gang_ports)
        for rank in gang.ranks:
            self.gang_ports.setdefault(rank.host.name, set()).update(rank.rank.ports if rank.rank else ())
        return gang

    def _with_spares(self, replicas: list[PlannedReplica]) -> tuple[list[PlannedReplica], int]:
        """Let new replicas take the place of ones that serve, as far as model.yaml and room allow."""
        changing = [replica for replica in replicas if replica.replaced]
        update = self.deployment.update
        surge = update.max_surge
        if surge is None:
            in_rotation = sum(not (self._away(replica) or replica.off) for replica in replicas) + len(self.untouched)
            surge = 1 if in_rotation <= 1 or update.max_unavailable == 0 else 0
        used = (
            {replica.placement.index for replica in replicas}
            | self._unseen_indices()
            | {i for s in self.standing if (i := index_of(s.project, self.deployment.name)) is not None}
        )
        spares = 0
        for old in changing[:surge]:
            (index,) = unused(used, 1)
            staged = {rank.host.name for replica in replicas for rank in replica.ranks}
            placement = self.places.beside(index, sorted(staged) if self.change.wanted.source else ())
            if placement is None:
                break
            used.add(index)
            replicas = [replica for replica in replicas if replica is not old]
            replicas.append(self._planned(placement))
            spares += 1
            self.giving_way[old.project] = old.outcome.change.reasons
        if update.max_unavailable == 0 and changing and not spares:
            return self._none_missing(replicas), 0
        return replicas, spares

    def _again(self, change: Revision, replica: PlannedReplica) -> PlannedReplica:
        if not replica.others:
            return plan_replica(change, replica.placement, replica.claim)
        own = {port for rank in replica.ranks for port in (rank.rank.ports if rank.rank else ())}
        given = {host: ports - own for host, ports in self.gang_ports.items()}
        return plan_gang(change, replica.placement, replica.claim, given)

    def _none_missing(self, replicas: list[PlannedReplica]) -> list[PlannedReplica]:
        """Leave those as they are that only await a newer certificate; InvalidError where others must be replaced."""
        as_they_are = replace(self.change, rolls=False)
        left = [self._again(as_they_are, r) if r.replaced else r for r in replicas]
        if any(replica.replaced for replica in left):
            raise InvalidError(
                f"update.max_unavailable of {self.deployment.name} is 0, and there is no room for a replica more",
                hint="free a GPU on a host that has the weights, or set max_unavailable to 1",
            )
        return left
