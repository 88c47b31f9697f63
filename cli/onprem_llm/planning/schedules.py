"""The steps of a schedule: held while replicas change, written once they have, taken away with the last entry.

Hosts go on by themselves from there (docs/adr/0018-a-table-decides-who-runs.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.json_values import is_list
from onprem_llm.planning.addresses import reached_at
from onprem_llm.planning.clock_rest import REST, put_right
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.gateway import PROJECT
from onprem_llm.planning.replicas import PlannedReplica, Revision
from onprem_llm.planning.rotation import away
from onprem_llm.planning.scheduled import kept_order, known_order, order_of
from onprem_llm.planning.types import Change, Step, StepKind
from onprem_llm.rendering.schedule import Slot, schedule_files, sums

# A change that was cut off must not keep a schedule from being followed for ever: a hold counts for this long, and for
# as long as the change's own steps may take where that is longer. Bytes are brought before it, for days if need be.
HOLD_SECONDS = 4 * 3600
STEP_SECONDS = 600  # of a step, beside starting and draining
BRINGING: frozenset[StepKind] = frozenset({"registry", "stage", "fan_out"})


@dataclass(frozen=True, slots=True)
class PlannedSchedule:
    """A deployment's schedule on all hosts that have a part in it; `files`: host -> what differs there."""

    deployment: str
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    gone: tuple[str, ...] = ()  # hosts that have no part in it any more
    holding: tuple[str, ...] = ()  # hosts that follow one now
    held: tuple[str, ...] = ()  # those of `holding` that a change which was cut off keeps from it still
    off: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # host -> what its clock has switched off
    project_seconds: int = 0  # that a replica may take to start and to end its requests
    resting: Step | None = None  # where hosts rest that are not drained, or the other way round

    @property
    def variant(self) -> str:
        """The folder of its files in the seam."""
        return f"schedule.{self.deployment}"

    def changes(self) -> list[Change]:
        """Return what a person reads of it."""
        subject = "schedule"
        found = [
            Change(host, subject, "update" if host in self.holding else "create", ("replicas by the clock",))
            for host in self.files
        ]
        found += [
            Change(host, subject, "update", ("it is held since a change was cut off",))
            for host in self.held
            if host not in {*self.files, *self.gone}
        ]
        resting = self.resting.orders.items() if self.resting else ()
        found += [
            Change(
                host,
                subject,
                "update",
                (f"it {'rests' if order == REST else 'does not rest any more'}: drained hosts'",),
            )
            for host, order in resting
        ]
        return [*found, *(Change(host, subject, "remove", ("it has no part in it any more",)) for host in self.gone)]

    def around(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the steps of a change with the schedule held until the book is written, and then followed.

        Right after the book: what comes then may fail, and is not taken back.
        """
        first = next((number for number, step in enumerate(steps) if step.kind not in BRINGING), len(steps))
        bringing, changing = steps[:first], steps[first:]
        hold = self.hold(changing) if changing else None
        written = self.write(held=hold is not None)
        at = next((number for number, step in enumerate(changing, 1) if step.kind == "record"), len(changing))
        found = (*bringing, hold, *changing[:at], self.resting, written, *changing[at:])
        return tuple(step for step in found if step is not None)

    def hold(self, steps: tuple[Step, ...]) -> Step | None:
        """Return the step that keeps hosts from starting and stopping replicas while those change, in `steps`.

        A host whose clock has switched others off since the look, while bytes were brought, refuses it.
        """
        if not self.holding:
            return None
        name = self.deployment
        # As long again for the way back.
        seconds = max(HOLD_SECONDS, 2 * sum(_most(step) * (STEP_SECONDS + self.project_seconds) for step in steps))
        on: dict[str, dict[str, object]] = {}
        for host in self.holding:
            planned = {"off": list(self.off[host])} if host in self.off else {}
            on[host] = {"deployment": name, "state": "held", "seconds": seconds, "planned": planned}
        off = {"deployment": name, "state": "released"}
        back = Step("schedule", f"Let the schedule of {name} go on", dict.fromkeys(self.holding, off))
        return Step("schedule", f"Hold the schedule of {name}", on, (back,))

    def write(self, *, held: bool) -> Step | None:
        """Return the step that writes what differs, and lets all hosts do what it says of this moment."""
        name = self.deployment
        orders: dict[str, dict[str, object]] = {
            host: {"deployment": name, "state": "released"} for host in (self.holding if held else self.held)
        }
        orders |= {host: {"deployment": name, "state": "absent"} for host in self.gone}
        for host, files in self.files.items():
            source = self.variant
            orders[host] = {"deployment": name, "state": "present", "source": source, "files": sums(files)}
        return Step("schedule", f"Write the schedule of {name}", orders) if orders else None


def plan_schedule(change: Revision, fleet: Fleet, current: Current) -> PlannedSchedule:
    """Render the schedule for each host, and keep what is not there so."""
    deployment = change.deployment
    there = {host.name: host for host in current.hosts if deployment.name in host.schedules}
    files: dict[str, dict[str, str]] = {}
    if deployment.schedule:
        _refuse_gangs(deployment.name, fleet)
        order = _order(change, fleet, current)
        mine: dict[str, list[Slot]] = {}
        hosts = {host.name: host for host in current.gateways}
        for replica in fleet.replicas:
            hosts[replica.host.name] = replica.host
            mine.setdefault(replica.host.name, []).append(_slot(change, replica))
        routing = {host.name for host in current.gateways}
        for name in hosts:
            gateway = change.site.project_path(PROJECT) if name in routing else None
            files[name] = schedule_files(deployment, order, mine.get(name, ()), gateway)
    gone = tuple(name for name in there if name not in files)
    differing = {name: one for name, one in files.items() if not _same(there.get(name), deployment.name, one)}
    found = {name: host.schedules[deployment.name] for name, host in there.items()}
    off = {name: tuple(sorted(one.decided.off)) for name, one in found.items() if one.decided}
    return PlannedSchedule(
        deployment.name,
        differing,
        gone,
        tuple(there),
        tuple(name for name, one in found.items() if one.held),
        off,
        deployment.timeouts.start + deployment.update.drain_timeout,
        put_right(current, files),
    )


def _most(step: Step) -> int:
    """Return how many projects a step changes one after another, on the host that has the most of them."""
    return max((len(found) for one in step.orders.values() if is_list(found := one.get("projects"))), default=1)


def _refuse_gangs(name: str, fleet: Fleet) -> None:
    """Raise InvalidError for a replica over several hosts: they would start and stop its parts by their own clocks."""
    gang = next((replica for replica in fleet.replicas if replica.others), None)
    if gang is not None:
        hosts = ", ".join(rank.host.name for rank in gang.ranks)
        raise InvalidError(
            f"{name} has a schedule, and {gang.project} is a gang over {hosts}: each would start and stop its part by "
            "its own clock",
            hint="leave schedule out of model.yaml, or give each replica one host (resources.nodes: 1)",
        )


def without_schedule(name: str, current: Current) -> Step | None:
    """Return the step that takes a deployment's schedule away from all hosts; None where none has it."""
    gone = [host.name for host in current.hosts if name in host.schedules]
    order = {"deployment": name, "state": "absent"}
    return Step("schedule", f"Take the schedule of {name} away", dict.fromkeys(gone, order)) if gone else None


def _order(change: Revision, fleet: Fleet, current: Current) -> list[str]:
    projects = [*(replica.project for replica in fleet.replicas), *fleet.silent]
    known = known_order(change.deployment.name, current)
    if fleet.untouched:  # hosts that --limit leaves out follow the table that they have
        return kept_order(projects, known)
    out = {replica.project for replica in fleet.replicas if away(replica.host.name, current)}
    return order_of(projects, fleet.off, out | set(fleet.silent), known)


def _slot(change: Revision, replica: PlannedReplica) -> Slot:
    url = f"{reached_at(replica.claim, replica.host, tls=change.engine_tls)}/metrics"
    return Slot(replica.project, change.site.project_path(replica.project), url)


def _same(host: HostState | None, name: str, files: Mapping[str, str]) -> bool:
    found = host.schedules[name] if host is not None else None
    return found is not None and found.armed and dict(found.files) == sums(files)
