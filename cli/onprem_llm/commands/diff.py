"""`onprem-llm diff`: what two revisions of a deployment differ in."""

import difflib

import click

from onprem_llm import output
from onprem_llm.book_history import Revision, changes, read_history
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options
from onprem_llm.planning.places import place

COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command("diff", short_help="Show what two revisions of a deployment differ in.")
@click.argument("name")
@click.argument("a", type=click.IntRange(min=1))
@click.argument("b", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options()
def command(name: str, a: int, b: int, as_json: bool, connection: Connection) -> None:
    """Show what revision B of a deployment has that revision A has not: model.yaml, weights, images.

    \b
    Example:
      onprem-llm diff tiny 1 2
    """
    with output.glimpse() as progress:
        history = read_history(connection, name, progress)
    old, new = history.revision(a), history.revision(b)
    lines = diff_lines(name, old, new)
    if as_json:
        document = {"deployment": name, "from": a, "to": b, "changes": list(changes(old, new)), "diff": lines}
        output.show_json(document)
    elif lines:
        for line in lines:
            click.secho(line, fg=COLOURS.get(line[:1]))
    else:
        output.say(f"Revisions {a} and {b} of {name} are the same.")
    for note in history.notes:
        output.note(note)


def diff_lines(name: str, old: Revision, new: Revision) -> list[str]:
    """Return a unified diff of the texts in the book and the images that they stood for."""
    return list(
        difflib.unified_diff(
            _lines(old), _lines(new), f"{name} revision {old.number}", f"{name} revision {new.number}", lineterm=""
        )
    )


def _lines(revision: Revision) -> list[str]:
    images = [f"# image: {ref} {place(image)}" for ref, image in sorted(revision.images.items())]
    return [*images, *revision.model_yaml.splitlines()]
