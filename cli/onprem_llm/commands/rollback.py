"""`onprem-llm rollback`: an earlier revision, deployed again."""

import click

from onprem_llm import output
from onprem_llm.book_history import History, Revision, read_history
from onprem_llm.book_state import BookEntry
from onprem_llm.changing import carry_out, change_options
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.options import connection_options
from onprem_llm.planned import plan_again


@click.command("rollback", short_help="Go back to an earlier revision of a deployment.")
@click.argument("name")
@click.argument("revision", type=click.IntRange(min=1), required=False)
@change_options
@connection_options()
def command(
    name: str, revision: int | None, yes: bool, break_lock: bool, as_json: bool, connection: Connection
) -> None:
    """Go back to an earlier revision, the one before the current without a number. It becomes a new revision.

    Its image and its weights must still be on the hosts. It rolls as an update does.

    \b
    Example:
      onprem-llm history tiny
      onprem-llm rollback tiny 3
    """
    with output.glimpse() as progress:
        history = read_history(connection, name, progress)
        made = plan_again(
            name,
            "rollback",
            connection,
            progress,
            revision=lambda now: _entry(_target(history, revision, now.revision)),
        )
    for note in history.notes:
        output.note(note)
    plan, target = made.plan, _target(history, revision, made.current.book[name].revision)
    question = f"Go back to revision {target.number} of {name}?"
    done = f"{name} is back at what revision {target.number} was, as revision {plan.revision}."
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)


def _entry(target: Revision) -> BookEntry:
    return BookEntry(target.number, target.model_yaml, target.images, target.recorded_at)


def _target(history: History, number: int | None, current: int) -> Revision:
    """Return the revision that was asked for, else the one before `current`, which the plan is made from."""
    if number is not None:
        return history.revision(number)
    earlier = [one for one in history.revisions if one.number < current]
    if not earlier:
        have = ", ".join(str(one.number) for one in history.revisions) or "none"
        raise InvalidError(
            f"{history.deployment} has no revision before {current}, the current one; it has: {have}",
            hint=f"onprem-llm history {history.deployment}",
        )
    return earlier[-1]
