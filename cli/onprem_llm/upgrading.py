"""Another version of the driver over a fleet: look and plan first, then one host after the other, the canary first."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from onprem_llm.apply import apply, carry, record_event
from onprem_llm.checks.after_upgrade import Returned, trouble
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, RefusedError
from onprem_llm.look import View, look_whole, unexpected
from onprem_llm.output import Progress, note
from onprem_llm.package_trees import REPOSITORY_FILE, SOURCES_FILE
from onprem_llm.person import person
from onprem_llm.planning.driver_serving import is_out, leaving, served_on, start_seconds
from onprem_llm.planning.driver_upgrade import HostUpgrade, Seen, UpgradePlan, plan_upgrade
from onprem_llm.planning.replicas import serves
from onprem_llm.rotations import plan_rotation
from onprem_llm.run_events import RunResult
from onprem_llm.run_lock import locked
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import Site
from onprem_llm.upgrade_view import Ended
from onprem_llm.wanted import load_site

POLL_SECONDS = 10.0
TRIES = 6  # to plan a rotation and carry it out while nothing moves in between


@dataclass(frozen=True)
class Prepared:
    """What was found out before anything is changed; `before` is what each host said of its GPUs."""

    plan: UpgradePlan
    site: Site
    before: Mapping[str, Returned]


@dataclass
class Outcome:
    """What came of it. `states`: host -> upgraded or failed; no entry: it was not touched."""

    states: dict[str, str] = field(default_factory=dict)
    drained: list[str] = field(default_factory=list)
    """Hosts that are out of rotation still."""
    error: OnpremError | None = None


def prepare(version: str, connection: Connection, progress: Progress) -> Prepared:
    """Look at every host and plan the turns; nothing is changed.

    InvalidError for hosts that cannot have the version, whatever keeps them from it.
    """
    view = look_whole(connection, progress)
    site = load_site(view.current, connection.inventory)
    if site.nvidia_driver.run_file is not None:
        raise InvalidError(
            "onprem_llm_site.nvidia_driver.run_file is set, and drivers are upgraded by packages",
            hint="leave the setting out where hosts have a driver of packages",
        )
    systems = {**dict.fromkeys(view.current.unreachable, ""), **{one.name: one.os_name for one in view.current.hosts}}
    orders = {host: order_of(site, version, system) for host, system in systems.items()}
    result = _run("upgrade_look.yml", "Looking at drivers", orders, None, connection, progress)
    gating = unexpected(replace(view, failures=result.failures), connection)
    raise_for_failures(replace(result, failures=gating), doing="looking at drivers (nothing was changed)")
    seen = [Seen.of(host, returned) for host, returned in result.returned.items()]
    return Prepared(plan_upgrade(version, seen, view.current), site, result.returned)


def order_of(
    site: Site, version: str, system: str, *, downgrade: bool = False, reboot: bool = False
) -> dict[str, object]:
    """Return a host's order. `system`: what it calls its OS, which says how a bundle's packages came there."""
    by_apt = system.startswith(("Debian", "Ubuntu"))
    brought = (SOURCES_FILE if by_apt else REPOSITORY_FILE) if site.packages_dir is not None else None
    return {
        "version": version,
        "downgrade": downgrade,
        "reboot": reboot,
        "nvidia_driver": site.nvidia_driver.model_dump(mode="json"),
        "package_mirrors": site.package_mirrors.model_dump(exclude_none=True),
        "package_source": brought,
        "proxy": site.proxy.model_dump(mode="json", exclude_none=True) if site.proxy else None,
    }


def carry_out(prepared: Prepared, connection: Connection, progress: Progress, *, reboots: Collection[str]) -> Outcome:
    """Take the hosts' turns; the first that is not well ends it, and stays drained. The others are not touched then.

    `reboots`: the hosts that may be rebooted.
    """
    outcome = Outcome(drained=list(prepared.plan.drained))
    for number, turn in enumerate(prepared.plan.hosts):
        later = [one.host for one in prepared.plan.hosts[number + 1 :]]
        one = _Turn(turn, prepared, connection, progress, turn.host in reboots)
        done = list(outcome.states)
        try:
            one.take()
        except OnpremError as error:
            outcome.states[turn.host] = "failed" if one.touched else "waiting"
            outcome.drained += [turn.host] if one.drained else []
            outcome.error = one.ended(done, later).error(error)
            return outcome
        except KeyboardInterrupt:
            note(one.ended(done, later).stopped)
            raise
        outcome.states[turn.host] = "upgraded"
    return outcome


@dataclass
class _Turn:
    """One host's turn."""

    turn: HostUpgrade
    prepared: Prepared
    connection: Connection
    progress: Progress
    reboots: bool
    drained: bool = False  # by us, and not let in again
    touched: bool = False

    @property
    def host(self) -> str:
        return self.turn.host

    def ended(self, done: Sequence[str], later: Sequence[str]) -> Ended:
        """Return how the fleet is where the turn did not come to its end."""
        return Ended(self.host, self.drained, self.touched, tuple(done), tuple(later))

    def take(self) -> None:
        """Drain, upgrade, look, wait for the replicas, let in again. OnpremError."""
        view = look_whole(self.connection, self.progress, again=True)
        with self._locked(view):
            self._while_hosts_move(self._drain, view)
            served = served_on(view.current, self.host)
            self.touched = True
            state = view.current.host(self.host)
            self._judge(self._upgrade(state.os_name if state else ""))
            self._await(served)
        if self.drained:
            self._while_hosts_move(self._let_in)
        if view.current.gateway is not None:
            said = f"{self.host}: {self.turn.seen.loaded or 'none that loads'} -> {self.turn.seen.then}"
            event = {"action": "driver", "by": person(), "result": "ok", "message": said}
            record_event(event, view.current.gateway.name, self.connection)

    @contextmanager
    def _locked(self, view: View) -> Iterator[None]:
        """Hold the site's lock, where there is a gateway host that has one."""
        gateway = view.current.gateway
        if gateway is None:
            yield
            return
        with locked(gateway.name, f"driver of {self.host}", self.connection, self.progress):
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
        with self._rotating(out=False):
            plan = plan_rotation(self.host, self.connection, back=True, view=view)
            apply(plan, self.connection, self.progress)

    def _drain(self, view: View | None) -> None:
        """Take the host out of rotation where replicas serve on it; never one more than was agreed to."""
        view = view or look_whole(self.connection, self.progress, again=True)
        serving = leaving(view.current, self.host, self.turn.alone)
        if serving:
            plan = plan_rotation(self.host, self.connection, back=False, view=view)
            with self._rotating(out=True):
                carry(plan, self.connection, self.progress)

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
        orders = {self.host: order}
        result = _run("upgrade_driver.yml", title, orders, [self.host], self.connection, self.progress)
        raise_for_failures(result, doing="upgrading the driver", hint="mend what is said above")
        return result

    def _judge(self, result: RunResult) -> None:
        after = result.returned.get(self.host, {})
        bad = trouble(self.host, self.turn.seen.then or "", self.prepared.before.get(self.host, {}), after)
        if bad:
            raise OnpremError(f"{self.host}: {bad}", hint="mend what is said above")

    def _await(self, projects: Sequence[str]) -> None:
        """Wait until the replicas that served before answer again, each as long as its model.yaml gives it."""
        if not projects:
            return
        self.progress.step(f"Waiting for the replicas on {self.host}", [self.host])
        end = None
        while True:
            current = look_whole(self.connection, again=True).current
            there = current.host(self.host)
            missing = [one for one in projects if there is None or not serves(there, one)]
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


def _run(
    playbook: str,
    title: str,
    orders: Mapping[str, Mapping[str, object]],
    hosts: Sequence[str] | None,
    connection: Connection,
    progress: Progress,
) -> RunResult:
    with run_folder() as folder:
        variables = {"onprem_llm_order_file": str(write_orders(folder, 0, orders)), "onprem_llm_seam": str(folder)}
        return run(playbook, connection, hosts=hosts, variables=variables, progress=progress, title=title)
