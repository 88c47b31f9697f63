"""All replicas of the deployment that is being changed: which stay, which are new, which leave."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from onprem_llm.errors import InvalidError
from onprem_llm.planning.addresses import Claim, bind_address
from onprem_llm.planning.compatibility.placing import compatibility_of
from onprem_llm.planning.memory.placing import Memory, tight_warning
from onprem_llm.planning.no_room import NoRoomError
from onprem_llm.planning.placement import Placement, Placer, check_names, is_lost
from onprem_llm.planning.ports import choose_claim
from onprem_llm.planning.replicas import PlannedReplica, Revision, plan_replica
from onprem_llm.planning.rotation import away, is_down, is_down_everywhere, is_up
from onprem_llm.planning.standing import Standing, index_of, standing_of
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
    forgotten: tuple[str, ...] = ()  # on silent hosts, and not wanted any more: they leave the book

    @property
    def in_rotation(self) -> int:
        """How many get requests when none is being replaced; new ones and those that do not serve are started first."""
        staying_on = sum(standing.routed for standing in self.leaving)
        return sum(replica.project not in self.away for replica in self.replicas) + staying_on + len(self.untouched)

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
        recorded = {project: at.host for project, at in self.recorded.items()}
        near = None if change.wanted.source else change.manifest.id
        item = change.wanted
        self.memory = _memory(change, known=entry is not None)
        runs = compatibility_of(item, change.why, known=entry is not None)
        self.placer = Placer(
            self.deployment, self.current, entry is not None, recorded, near, item.only, self.memory, runs, item.image
        )
        self.unseen = tuple(
            p for p, host in recorded.items() if host in self.current.unreachable and not is_lost(self.current, host)
        )
        self.untouched = tuple(p for p in self.unseen if self._goes_on(p))
        self.silent: tuple[str, ...] = self.unseen  # those that stay
        self.standing = standing_of(self.deployment.name, self.current)
        self.claims: dict[str, list[Claim]] = {}
        self.giving_way: dict[str, tuple[str, ...]] = {}

    def build(self) -> Fleet:
        kept, fresh = self._indices()
        placed = self._placed([*kept, *fresh])
        replicas = [self._planned(placement) for placement in placed]
        replicas, spares = self._with_spares(replicas)
        replicas.sort(key=lambda replica: replica.placement.index)
        staying = {(replica.host.name, replica.project) for replica in replicas}
        leaving = tuple(s for s in self.standing if (s.host.name, s.project) not in staying)
        silent = {project: self._silent_revision(project, replicas) for project in self.silent}
        return Fleet(
            tuple(replicas),
            leaving,
            silent,
            dict(self.placer.passed_over),
            spares,
            self.giving_way,
            away={replica.project: replica.host.name for replica in replicas if self._away(replica)}
            | {project: self.recorded[project].host for project in silent if project not in self.untouched},
            untouched=tuple(project for project in silent if project in self.untouched),
            down=frozenset(r.project for r in replicas if r.replaced and self._missed_by_nobody(r)),
            tight=tuple(text for replica in replicas if (text := self._tight(replica))),
            forgotten=tuple(project for project in self.unseen if project not in silent),
        )

    def _tight(self, replica: PlannedReplica) -> str | None:
        if replica.outcome.change.action not in {"create", "update"}:
            return None
        return tight_warning(self.memory, replica.host, replica.project, replica.placement.gpus)

    def _away(self, replica: PlannedReplica) -> bool:
        left_down = replica.serving and not replica.replaced and is_down(self._server(replica), self.current)
        return left_down or away(replica.host.name, self.current)

    def _missed_by_nobody(self, replica: PlannedReplica) -> bool:
        return is_down_everywhere(self._server(replica), self.current)

    def _server(self, replica: PlannedReplica) -> str:
        return f"{self.deployment.name}/{replica.project}"

    def _placed(self, indices: list[int]) -> list[Placement]:
        try:
            return [self.placer.place(index) for index in indices]
        except NoRoomError as error:
            name, entry = self.deployment.name, self.current.book.get(self.deployment.name)
            before = parse_deployment(entry.model_yaml, f"the book's {name}") if entry else self.deployment
            if before.resources.gpus == self.deployment.resources.gpus or len(self.standing) < 2:
                raise
            # Its own replicas hold GPUs that those that are to be need: some go before those come.
            fewer = min(self.deployment.replica_count, len(self.standing) - 1)
            hint = f"its own replicas may hold the GPUs: onprem-llm scale {name} --replicas {fewer}, then this again"
            raise NoRoomError(error.message, details=error.details, hint=f"{hint}; or {error.hint}") from error

    def _silent_revision(self, project: str, replicas: list[PlannedReplica]) -> int:
        """Say which revision a replica out of sight has to have to get requests.

        Its own so far while that is still wanted; else the new one, which it gets once its host is back. One that was
        left out on purpose serves on as it is.
        """
        so_far = self.recorded[project].revision
        if self.recorded[project].host in self.current.left_out:
            return so_far
        wanted = {replica.revision for replica in replicas}
        return so_far if so_far in wanted or only_counts(self.change.why) else self.change.revision

    def _indices(self) -> tuple[list[int], list[int]]:
        """Return the indices that stay and those that are new.

        A replica that serves and cannot stay where it is gets another index: it goes once that one answers.
        """
        homeless = {s.project: why for s in self.standing if s.serving and (why := self.placer.why_not(s.project))}
        there = {i for s in self.standing if (i := index_of(s.project, self.deployment.name)) is not None}
        stay = [i for i in sorted(there) if f"{self.deployment.name}-{i}" not in {*homeless, *self.unseen}]
        self.silent = self._silent_that_stay()
        wanted = self.deployment.replica_count - len(self.silent)
        used = there | self._unseen_indices()
        kept = sorted(sorted(stay, key=self._rank)[: max(wanted, 0)])
        fresh = _unused(used, max(wanted - len(kept), 0))
        self.giving_way = {project: (why,) for project, why in sorted(homeless.items())[: len(fresh)]}
        return kept, fresh

    def _silent_that_stay(self) -> tuple[str, ...]:
        """Leave replicas of silent hosts as many as are wanted beside those that are known to serve, or can."""
        seen = {s.project for s in self.standing if s.belongs and s.project not in self.unseen}
        room = max(0, self.deployment.replica_count - len(seen) - len(self.untouched))
        silent = [project for project in self.unseen if project not in self.untouched]
        return (*self.untouched[: self.deployment.replica_count], *silent[:room])

    def _goes_on(self, project: str) -> bool:
        left_out = self.recorded[project].host in self.current.left_out
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
        return plan_replica(self.change, placement, claim)

    def _with_spares(self, replicas: list[PlannedReplica]) -> tuple[list[PlannedReplica], int]:
        """Let new replicas take the place of ones that serve, as far as model.yaml and room allow."""
        changing = [replica for replica in replicas if replica.replaced]
        update = self.deployment.update
        surge = update.max_surge
        if surge is None:
            in_rotation = sum(not self._away(replica) for replica in replicas) + len(self.untouched)
            surge = 1 if in_rotation <= 1 or update.max_unavailable == 0 else 0
        used = (
            {replica.placement.index for replica in replicas}
            | self._unseen_indices()
            | {i for s in self.standing if (i := index_of(s.project, self.deployment.name)) is not None}
        )
        spares = 0
        for old in changing[:surge]:
            (index,) = _unused(used, 1)
            staged = {replica.host.name for replica in replicas} if self.change.wanted.source else ()
            placement = self.placer.place_beside(index, self.change.manifest.id, staged)
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

    def _none_missing(self, replicas: list[PlannedReplica]) -> list[PlannedReplica]:
        """Leave those as they are that only await a newer certificate; InvalidError where others must be replaced."""
        as_they_are = replace(self.change, rolls=False)
        left = [plan_replica(as_they_are, r.placement, r.claim) if r.replaced else r for r in replicas]
        if any(replica.replaced for replica in left):
            raise InvalidError(
                f"update.max_unavailable of {self.deployment.name} is 0, and there is no room for a replica more",
                hint="free a GPU on a host that has the weights, or set max_unavailable to 1",
            )
        return left


def _memory(change: Revision, *, known: bool) -> Memory | None:
    files, deployment = change.wanted.files, change.deployment
    if files is None or deployment.resources.gpus == 0:
        return None
    return Memory(files, deployment, change.why, known=known)


def only_counts(why: Iterable[str]) -> bool:
    """Tell whether a change is about nothing but how many replicas there are, and how requests reach them."""
    return all(reason.startswith(("replicas:", "update", "routing:")) for reason in why)


def _unused(used: Iterable[int], count: int) -> list[int]:
    taken, index = set(used), 0
    found: list[int] = []
    while len(found) < count:
        if index not in taken:
            found.append(index)
        index += 1
    return found
