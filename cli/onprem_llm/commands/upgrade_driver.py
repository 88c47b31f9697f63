"""What `onprem-llm bootstrap --upgrade-driver VERSION` does: the plan, questions, turns, and what is left."""

import re
import sys
from collections.abc import Collection

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import UsageError
from onprem_llm.planning.driver_upgrade import UpgradePlan, check_drained, check_reboots
from onprem_llm.upgrade_look import WAIT_SECONDS, prepare
from onprem_llm.upgrade_view import upgrade_json, upgrade_text
from onprem_llm.upgrading import Outcome, carry_out

VERSION = re.compile(r"\d{3,4}(\.\d+(\.\d+)?)?")


def upgrade_driver(
    version: str, connection: Connection, *, check: bool, yes: bool, as_json: bool, break_lock: bool = False
) -> None:
    """Plan, show, ask, carry out. What keeps it from being done is raised, after --json's document."""
    if not VERSION.fullmatch(version):
        raise UsageError(
            f"--upgrade-driver: found {version!r}, expected a branch or a version of the driver",
            hint="as 580, which takes its newest, or 580.95.05",
        )
    with output.progress() as progress:
        wait = 0 if check else WAIT_SECONDS
        prepared = prepare(version, connection, progress, wait=wait, break_lock=break_lock)
    plan = prepared.plan
    if not as_json:
        output.say(upgrade_text(plan))
    outcome = Outcome(drained=list(plan.drained))
    if plan.hosts and not check:
        reboots = _asked(plan, prepared.site.reboot, yes=yes, as_json=as_json)
        with output.progress() as progress:
            outcome = carry_out(prepared, connection, progress, reboots=reboots, break_lock=break_lock)
    if as_json:
        output.show_json(upgrade_json(plan, outcome.states, outcome.drained))
    elif not check:
        output.say(f"\n{ending(plan, outcome)}")
    if outcome.error is not None:
        raise outcome.error


def _asked(plan: UpgradePlan, policy: str, *, yes: bool, as_json: bool) -> Collection[str]:
    """Ask what is to be asked; return the hosts that may be rebooted. --yes agrees to all but that."""
    check_drained(plan)
    asks = policy == "ask" and not yes and not as_json and sys.stdin.isatty()
    check_reboots(plan, allowed=asks or policy == "auto")
    output.agree(f"\n{_question(plan)}", yes=yes)
    if plan.downgrades:
        output.agree(f"Go back to an older driver on {', '.join(plan.downgrades)}?", yes=yes)
    if policy == "auto":
        return [turn.host for turn in plan.hosts]
    if plan.reboots:
        output.agree(f"Reboot {', '.join(plan.reboots)}, each drained first?", yes=False)
    return list(plan.reboots)


def _question(plan: UpgradePlan) -> str:
    changed = [turn.host for turn in plan.hosts if not turn.only_let_in]
    back = ", ".join(turn.host for turn in plan.hosts if turn.only_let_in)
    if not changed:
        return f"Let {back} in again, if all is well there?"
    more = f", and let {back} in again" if back else ""
    return f"Upgrade the driver of {', '.join(changed)}, one after the other{more}?"


def ending(plan: UpgradePlan, outcome: Outcome) -> str:
    """Say in words what was done."""
    done = [host for host, state in outcome.states.items() if state == "upgraded"]
    lines = [f"Upgraded: {', '.join(done)}."] if done else ["No driver was changed."]
    back = [host for host in outcome.states if host in plan.left and host not in outcome.drained]
    lines += [f"Let in again: {', '.join(back)}."] if back else []
    if not plan.hosts:
        lines = (
            [f"Nothing to do: driver {plan.version} runs wherever it could."]
            if plan.there
            else ["No host has a driver."]
        )
    still = [host for host in plan.drained if host in outcome.drained]
    lines += [f"Still drained, as before: {', '.join(still)} (onprem-llm host undrain HOST)."] if still else []
    return "\n".join(lines)
