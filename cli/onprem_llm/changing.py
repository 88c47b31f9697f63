"""What every command that changes something does with its plan: show it, ask, apply it, say where things answer."""

from collections.abc import Callable
from typing import TypeVar

import click

from onprem_llm import output
from onprem_llm.apply import apply
from onprem_llm.connection import Connection
from onprem_llm.plan_view import endpoints_text, plan_json, plan_text
from onprem_llm.planning.types import Plan

Command = TypeVar("Command", bound=Callable[..., object])


def change_options(command: Command) -> Command:
    """Add --yes, --break-lock and --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON at the end."),
        click.option("--break-lock", is_flag=True, help="Take the lock from a run that is dead."),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
    ):
        command = option(command)
    return command


def carry_out(
    plan: Plan,
    question: str,
    connection: Connection,
    *,
    yes: bool,
    break_lock: bool,
    as_json: bool,
    done: str,
    bandwidth: int | None = None,
) -> None:
    """Show a plan, ask, apply it, and say `done` and where things answer."""
    if not as_json:
        output.say(plan_text(plan))
    if not plan.is_noop:
        output.agree(f"\n{question}", yes=yes)
        with output.progress() as progress:
            apply(plan, connection, progress, break_lock=break_lock, bandwidth=bandwidth)
    report(plan, done, as_json=as_json)


def report(plan: Plan, done: str, *, as_json: bool) -> None:
    """Say what was done and where things answer now."""
    if as_json:
        output.show_json(plan_json(plan))
        return
    if not plan.is_noop:
        output.say(f"\n{done}")
    if plan.endpoints:
        output.say(f"\n{endpoints_text(plan)}")
