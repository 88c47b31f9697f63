"""Another version of the driver over a fleet: one host after the other, the canary first."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from onprem_llm.apply import apply, carry, record_event, try_to_record
from onprem_llm.checks.after_upgrade import trouble
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, RefusedError
from onprem_llm.look import View, look_whole
from onprem_llm.output import Progress, note
from onprem_llm.person import person
from onprem_llm.planning.clock_rest import follows_clock
from onprem_llm.planning.driver_serving import (
    PURPOSE,
    is_half_out,
    is_out,
    leaving,
    left_by_upgrade,
    served_on,
    start_seconds,
    starting_on,
)
from onprem_llm.planning.driver_upgrade import HostUpgrade
from onprem_llm.planning.replicas import serves
from onprem_llm.planning.scheduled import is_due_off
from onprem_llm.rotations import plan_rotation
from onprem_llm.run_events import RunResult, first_line
from onprem_llm.run_lock import locked
from onprem_llm.runner import raise_for_failures
from onprem_llm.upgrade_look import POLL_SECONDS, Prepared, order_of
from onprem_llm.upgrade_look import run_orders as _run
from onprem_llm.upgrade_view import Ended, change_words, changed_words
from onprem_llm.upgraded_nodes import check_joins, has_worker, join, lacks_worker, leave

TRIES = 6  # to plan a rotation and carry it out while nothing moves in between


@dataclass
class Outcome:
    """What came of it. `states`: host -> upgraded, let in or failed; no entry: it was not touched."""

    states: dict[str, str] = field(default_factory=dict)
    drained: list[str] = field(default_factory=list)
    """Hosts that are out of rotation still."""
    error: OnpremError | None = None


def carry_out(
    prepared: Prepared,
    connection: Connection,
    progress: Progress,
    *,
    reboots: Collection[str],
    break_lock: bool = False,
) -> Outcome:
    """Take the hosts' turns; the first that is not well ends it, and stays drained. The others are not touched then.

    `reboots`: the hosts that may be rebooted. `break_lock`: the lock is taken from the run that has it now.
    """
    outcome = Outcome(drained=list(prepared.plan.drained))
    for number, turn in enumerate(prepared.plan.hosts):
        later = [one.host for one in prepared.plan.hosts[number + 1 :]]
        one = _Turn(turn, prepared, connection, progress, turn.host in reboots, break_lock and not number)
        done = [host for host, state in outcome.states.items() if state == "upgraded"]
        try:
            one.take()
        except OnpremError as error:
            outcome.states[turn.host] = "failed" if one.touched else "waiting"
            outcome.error = one.ended(done, later).error(error)
            one.record_failure(one.why or error.message)
        except KeyboardInterrupt:
            note(one.ended(done, later).stopped)
            one.record_failure("stopped by Ctrl-C")
            raise
        else:
            outcome.states[turn.host] = "let in" if turn.only_let_in else "upgraded"
        outcome.drained = [host for host in outcome.drained if host != turn.host]
        outcome.drained += [turn.host] if one.drained or one.stays else []
        if outcome.error is not None:
            break
    return outcome


@dataclass
class _Turn:
    """One host's turn."""

    turn: HostUpgrade
    prepared: Prepared
    connection: Connection
    progress: Progress
    reboots: bool
    break_lock: bool = False
    drained: bool = False  # by us or an earlier upgrade, and not let in again
    stays: bool = False  # drained by a person, so it stays so
    touched: bool = False
    begun: str = ""  # what may go on on the host without us: upgrade, reboot
    why: str = ""  # what the host itself said that failed
    gateway: str | None = None

    def __post_init__(self) -> None:
        """Begin with what the plan says."""
        self.drained, self.stays = self.turn.left, self.turn.drained and not self.turn.left

    @property
    def host(self) -> str:
        return self.turn.host

    def ended(self, done: Sequence[str], later: Sequence[str]) -> Ended:
        """Return how the fleet is where the turn did not come to its end."""
        version = self.prepared.plan.version
        return Ended(self.host, version, self.drained, self.touched, self.begun, tuple(done), tuple(later))

    def take(self) -> None:
        """Drain, upgrade, look, wait for the replicas, let in again. OnpremError."""
        view = look_whole(self.connection, self.progress, again=True)
        self.drained = left_by_upgrade(view.current, self.host)
        self.stays = self.host in view.current.marks and not self.drained
        self.gateway = view.current.gateway.name if view.current.gateway else None
        with self._locked():
            self._while_hosts_move(self._drain, view)
            served = served_on(view.current, self.host)
            self.touched = True
            state = view.current.host(self.host)
            self._judge(self._upgrade(state.os_name if state else ""))
            self._await(served)
        if self.drained:
            self._while_hosts_move(self._let_in)
        if not self.turn.only_let_in and self.gateway:
            record_event(self._event("ok", changed_words(self.turn)), self.gateway, self.connection)

    def record_failure(self, why: str) -> None:
        """Write into the book that the turn came to no end, where it had begun."""
        if not self.touched or self.gateway is None:
            return
        state = "; it is drained" if self.drained else ""
        goes_on = ", and what was begun there may go on" if self.begun else ""
        said = f"{change_words(self.turn)} did not come to its end: {first_line(why).rstrip('.')}{state}{goes_on}"
        try_to_record(self._event("failed", said), self.gateway, self.connection)

    def _event(self, result: str, said: str) -> dict[str, object]:
        return {"action": "driver", "by": person(), "result": result, "message": f"{self.host}: {said}"}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the site's lock, where there is a gateway host that has one."""
        if self.gateway is None:
            yield
            return
        doing = f"driver of {self.host}"
        with locked(self.gateway, doing, self.connection, self.progress, break_lock=self.break_lock):
            yield

    def _while_hosts_move(self, rotate: Callable[[View | None], None], view: View | None = None) -> None:
        """Look and do it again where any host moved meanwhile: a CDI specification that one makes anew is enough."""
        for left in reversed(range(TRIES)):
            try:
                rotate(view)
                break
            except RefusedError:
                if not left:
                    raise
                view = None
                time.sleep(POLL_SECONDS)

    def _let_in(self, view: View | None) -> None:
        """Let the host in, unless a person has taken it out meanwhile. What does not run there is said."""
        view = view or look_whole(self.connection, self.progress, again=True)
        mark = view.current.marks.get(self.host)
        if mark is not None and mark.purpose != PURPOSE:
            self.drained, self.stays = False, True
            return
        with self._rotating(out=False):
            plan = plan_rotation(self.host, self.connection, back=True, view=view)
            apply(plan, self.connection, self.progress)
            # Not where a person had taken the worker out beforehand.
            if (self.turn.worker or self.turn.left) and lacks_worker(view.current, self.host):
                join(self.host, self.connection, self.progress)
        for line in plan.warnings:
            note(line)

    def _drain(self, view: View | None) -> None:
        """Take the host out of rotation where replicas serve on it; never one more than was agreed to."""
        view = view or look_whole(self.connection, self.progress, again=True)
        serving = leaving(view.current, self.host, self.turn.alone)
        worker = has_worker(view.current, self.host)
        # What the clock would start meanwhile counts as what serves.
        clock = follows_clock(view.current, self.host)
        if worker:
            check_joins(self.host, self.connection, self.progress)
        if serving or worker or clock or is_half_out(view.current, self.host):
            plan = plan_rotation(self.host, self.connection, back=False, view=view, purpose=PURPOSE)
            with self._rotating(out=True):
                carry(plan, self.connection, self.progress)
                if worker:
                    leave(self.host, self.connection, self.progress)

    @contextmanager
    def _rotating(self, *, out: bool) -> Iterator[None]:
        """Know afterwards whether the host is drained, `out` if all went well; what was cut off says a look."""
        self.drained = True
        try:
            yield
        except (OnpremError, KeyboardInterrupt):
            self.drained = self._is_out()
            raise
        self.drained = out

    def _is_out(self) -> bool:
        """Look whether the host is out of rotation; where nobody can tell, it counts as that."""
        try:
            return is_out(look_whole(self.connection, again=True).current, self.host)
        except OnpremError:
            return True

    def _upgrade(self, system: str) -> RunResult:
        result = self._run(f"Upgrading the driver of {self.host}", system, reboot=False)
        reasons = result.returned.get(self.host, {}).get("reboot") or []
        if not reasons:
            return result
        if not self.reboots:
            why = "; ".join(str(one) for one in reasons)
            raise OnpremError(
                f"{self.host}: driver {self.turn.seen.then} is installed and wants a reboot that nobody allowed: {why}",
                hint="reboot the host",
            )
        return self._run(f"Rebooting {self.host}", system, reboot=True)

    def _run(self, title: str, system: str, *, reboot: bool) -> RunResult:
        seen = self.turn.seen
        # The very version that was shown, whatever the sources have by now.
        site, then = self.prepared.site, seen.then or ""
        order = order_of(site, then, system, downgrade=seen.is_downgrade, reboot=reboot)
        self.begun = "reboot" if reboot else "upgrade"
        result = _run("upgrade_driver.yml", title, {self.host: order}, [self.host], self.connection, self.progress)
        if not any(one.unreachable for one in result.failures):
            self.begun = ""
        self.why = result.failures[0].message if result.failures else ""
        raise_for_failures(result, doing="upgrading the driver", hint="mend what is said above")
        return result

    def _judge(self, result: RunResult) -> None:
        # What a look finds after an unfinished turn is no measure: an error that it brought would be known already.
        before = {} if self.turn.only_let_in else self.prepared.before.get(self.host, {})
        bad = trouble(self.host, self.turn.seen.then or "", before, result.returned.get(self.host, {}))
        if bad:
            raise OnpremError(f"{self.host}: {bad}", hint="mend what is said above")

    def _await(self, projects: Sequence[str]) -> None:
        """Wait until the replicas that served before answer again, each as long as its model.yaml gives it.

        After a turn that came to no end, those that are on their way, too.
        """
        if self.turn.left:
            current = look_whole(self.connection, again=True).current
            projects = list(dict.fromkeys([*projects, *starting_on(current, self.host)]))
        if not projects:
            return
        self.progress.step(f"Waiting for the replicas on {self.host}", [self.host])
        end = None
        while True:
            current = look_whole(self.connection, again=True).current
            there = current.host(self.host)
            # The hosts' clocks go on meanwhile: one that its schedule has switched off is not missed.
            left = [one for one in projects if there is None or not is_due_off(there, one)]
            missing = [one for one in left if there is None or not serves(there, one)]
            if not missing:
                return
            end = end or time.monotonic() + start_seconds(current, self.host)
            if time.monotonic() > end:
                raise OnpremError(
                    f"{self.host}: found {', '.join(missing)} not healthy under the new driver, expected healthy",
                    hint=f"onprem-llm logs and onprem-llm check --limit {self.host} say why; mend it",
                )
            self.progress.host(self.host, "running", f"waiting for {', '.join(missing)}")
            time.sleep(POLL_SECONDS)
