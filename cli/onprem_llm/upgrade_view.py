"""How an upgrade of drivers is laid out: the hosts in the order of their turns, and what each costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.errors import OnpremError
from onprem_llm.output import table_text
from onprem_llm.planning.driver_serving import undrain_words
from onprem_llm.planning.driver_upgrade import HostUpgrade, UpgradePlan

COLUMNS = ("host", "driver", "becomes", "serves", "its turn")


def upgrade_text(plan: UpgradePlan) -> str:
    """Lay out a plan for a person."""
    parts = []
    if plan.hosts:
        parts.append(table_text(COLUMNS, [_row(one, first=one is plan.hosts[0]) for one in plan.hosts]))
        parts.append(
            f"{plan.hosts[0].host} is the canary: {plan.why_first}. One host at a time; the first bad one ends it."
        )
    warnings = list(warnings_of(plan))
    parts += ["\n".join(f"Warning: {line}" for line in warnings)] if warnings else []
    lines = [f"Driver {plan.version} runs on: {', '.join(plan.there)}."] if plan.there else []
    lines += [f"Left out: {host}: {why}." for host, why in plan.left_out]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def _row(turn: HostUpgrade, *, first: bool) -> list[object]:
    seen = turn.seen
    now = seen.now if seen.loaded else f"{seen.installed}, not loaded"
    words = ["canary" if first else "", "gateway, last" if turn.gateway and not first else ""]
    words += [_out(turn), "leaves the Ray cluster meanwhile" if turn.worker else ""]
    words += ["reboot" if seen.reboot else ""]
    said = ", ".join(word for word in words if word)
    kind = f" ({seen.kind} modules)" if seen.kind else ""
    then = None if turn.only_let_in else f"{seen.then}{kind}"
    return [turn.host, now, then, ", ".join(turn.serves) or None, said or None]


def _out(turn: HostUpgrade) -> str:
    if turn.left:
        return "drained since an earlier run, let in again"
    return "drained, stays so" if turn.drained else "drained meanwhile" if turn.serves or turn.clock else ""


def change_words(turn: HostUpgrade) -> str:
    """Say what a turn is to change, as the events have it."""
    seen = turn.seen
    if turn.only_let_in:
        return f"letting it in again with driver {seen.then}"
    if turn.unfinished:
        return f"loading {seen.then}, which an earlier run installed,"
    return f"{seen.loaded or f'{seen.installed} (did not load)'} -> {seen.then}"


def changed_words(turn: HostUpgrade) -> str:
    """Say what a turn has changed."""
    then = turn.seen.then
    return (
        f"{then} was installed by an earlier run and did not run; it runs now"
        if turn.unfinished
        else change_words(turn)
    )


def warnings_of(plan: UpgradePlan) -> list[str]:
    """Say what a person should know before saying yes."""
    lines = [
        f"{turn.host} goes back, from {turn.seen.now} to {turn.seen.then}"
        for turn in plan.hosts
        if turn.seen.is_downgrade
    ]
    lines += [f"{turn.host}: {'; '.join(turn.seen.reboot)}: it is rebooted" for turn in plan.hosts if turn.seen.reboot]
    turns = [turn.host for turn in plan.hosts]
    lines += [
        f"{name} is drained{' since an earlier run' if name in plan.left else ''}: it gets no requests "
        f"(onprem-llm host undrain {name})"
        for name in plan.drained
        if name not in turns
    ]
    for turn in plan.hosts:
        lines += [
            f"{name} has replicas on {turn.host} alone: it does not answer during that turn"
            for name in (() if turn.beside else turn.alone)
        ]
        if turn.beside:
            drained = ", ".join(turn.beside)
            lines.append(
                f"{turn.host} has no turn while {drained} is drained, which has {', '.join(turn.alone)} too: "
                f"{undrain_words(turn.beside)}"
            )
        if turn.gateway and turn.seen.reboot:
            lines.append(f"{turn.host} is a gateway host: what it answers is away while it reboots")
    return lines


def upgrade_json(plan: UpgradePlan, states: Mapping[str, str], drained: Sequence[str]) -> dict[str, object]:
    """Return a plan and what became of it as --json prints them; hosts that no state is said of are `waiting`.

    `drained`: the hosts that are out of rotation now.
    """
    return {
        "version": plan.version,
        "canary": {"host": plan.hosts[0].host, "why": plan.why_first} if plan.hosts else None,
        "hosts": [_host(turn, states.get(turn.host, "waiting")) for turn in plan.hosts],
        "there": list(plan.there),
        "left_out": dict(plan.left_out),
        "drained": list(drained),
        "drained_by_an_earlier_run": list(plan.left),
        "warnings": warnings_of(plan),
    }


def _host(turn: HostUpgrade, state: str) -> dict[str, object]:
    seen = turn.seen
    return {
        "host": turn.host,
        "state": state,
        "loaded": seen.loaded,
        "installed": seen.installed,
        "then": seen.then,
        "modules": seen.kind,
        "serves": list(turn.serves),
        "ray_worker": turn.worker,
        "alone": list(turn.alone),
        "drained": turn.drained,
        "gateway": turn.gateway,
        "reboot": list(seen.reboot),
    }


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn that did not come to its end: how its host is left, and the others. How to go on: the same command."""

    host: str
    version: str  # as it was asked for
    drained: bool
    touched: bool
    begun: str  # what may go on there without us: upgrade, reboot
    done: tuple[str, ...]  # upgraded before
    later: tuple[str, ...]

    @property
    def state(self) -> str:
        """Say how the fleet is."""
        parts = [f"Upgraded: {', '.join(self.done)}."] if self.done else []
        parts += [f"{self.host} is drained, and gets no requests."] if self.drained else []
        if not self.touched:
            parts += ["Its driver was not touched." if self.drained else f"{self.host} was not touched."]
        parts += [f"Not touched: {', '.join(self.later)}."] if self.later else []
        return " ".join([*parts, *self._goes_on])

    @property
    def _goes_on(self) -> list[str]:
        if self.begun == "reboot":
            return [f"{self.host} may be on its way down for its reboot, and come up with the new driver."]
        if not self.begun:
            return []
        look = f"onprem-llm bootstrap --upgrade-driver {self.version} --check"
        return [
            f"What was begun on {self.host} may go on there to its end: packages and modules are not broken off "
            f"half-way. `{look}` says so for as long as it does, and the next run waits for it."
        ]

    @property
    def stopped(self) -> str:
        """Say what Ctrl-C has left."""
        return f"Stopped in the middle of {self.host}. {self.state} To go on, {self._ways_on}"

    def error(self, error: OnpremError) -> OnpremError:
        """Return what ended it with what is, and how to go on."""
        return OnpremError(
            error.message,
            details="\n".join(text for text in (error.details, self.state) if text),
            hint=f"{error.hint or 'mend what is said above'}; then {self._ways_on}",
            exit_code=error.exit_code,
        )

    @property
    def _ways_on(self) -> str:
        again = "run the same command again: it goes on where it stopped"
        if not self.drained:
            return again
        return f"{again}, and lets {self.host} in at the end. To let it in without that: {undrain_words([self.host])}"
