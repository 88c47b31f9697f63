"""`onprem-llm events`: what was changed, when, by whom, with what result."""

from dataclasses import asdict

import click

from onprem_llm import output
from onprem_llm.book_history import Event, read_events
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options

COLUMNS = ("when", "by", "action", "deployment", "revision", "result", "message")


@click.command("events", short_help="Show what was changed, when, by whom, with what result.")
@click.argument("name", required=False)
@click.option("--last", default=50, show_default=True, type=click.IntRange(min=1), help="How many, from the end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options()
def command(name: str | None, last: int, as_json: bool, connection: Connection) -> None:
    """Show what was done to one deployment or to all: the oldest first, failures too.

    \b
    Example:
      onprem-llm events
      onprem-llm events tiny --last 5
    """
    with output.glimpse() as progress:
        events, notes = read_events(connection, name, last, progress)
    if as_json:
        output.show_json({"events": [asdict(event) for event in events], "notes": list(notes)})
    elif events:
        output.show_table(COLUMNS, [_cells(event) for event in events])
    else:
        output.say("Nothing has happened yet.")
    for note in notes:
        output.note(note)


def _cells(event: Event) -> tuple[object, ...]:
    message = next(iter(event.message.splitlines()), None) or None
    return event.at, event.by, event.action, event.deployment, event.revision, event.result, message
