"""`onprem-llm history`: the numbered revisions of a deployment."""

from collections.abc import Mapping

import click

from onprem_llm import output
from onprem_llm.book_history import History, Revision, read_history
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options

COLUMNS = ("revision", "when", "by", "image", "what changed")


@click.command("history", short_help="Show the revisions of a deployment.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options()
def command(name: str, as_json: bool, connection: Connection) -> None:
    """Show every revision of a deployment: when, by whom, what changed. `*` marks the one that counts now.

    Read from the gateway host's book; a deployment that was taken down has a history too.

    \b
    Example:
      onprem-llm history tiny
      onprem-llm diff tiny 1 2
    """
    with output.glimpse() as progress:
        history = read_history(connection, name, progress)
    if as_json:
        output.show_json(as_document(history))
    else:
        output.show_table(COLUMNS, [row for revision in history.revisions for row in _rows(history, revision)])
    for note in history.notes:
        output.note(note)
    if history.current is None:
        output.note(f"{name} was taken down: no revision is current")


def _rows(history: History, revision: Revision) -> list[tuple[object, ...]]:
    """Return a line for the revision, and one more for each further change."""
    number = f"{revision.number}{' *' if revision.current else ''}"
    first, *more = history.changes(revision) or _nothing(history, revision)
    images = ", ".join(revision.images) or None
    return [
        (number, revision.recorded_at, revision.by, images, first),
        *(("", "", "", "", change) for change in more),
    ]


def _nothing(history: History, revision: Revision) -> tuple[str, ...]:
    return ("the first",) if history.before(revision) is None else ("nothing",)


def as_document(history: History) -> Mapping[str, object]:
    """Return what --json prints."""
    return {
        "deployment": history.deployment,
        "current": history.current.number if history.current else None,
        "revisions": [
            {
                "revision": revision.number,
                "recorded_at": revision.recorded_at,
                "by": revision.by,
                "current": revision.current,
                "images": dict(revision.images),
                "placement": dict(revision.placement),
                "changes": list(history.changes(revision)),
                "model_yaml": revision.model_yaml,
            }
            for revision in history.revisions
        ],
        "notes": list(history.notes),
    }
