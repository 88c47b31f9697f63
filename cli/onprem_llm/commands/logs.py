"""`onprem-llm logs`: what a deployment's containers say."""

import sys

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.look import look
from onprem_llm.options import connection_options
from onprem_llm.running import Place, only_deployment, places
from onprem_llm.ssh import stream

# Compose 2.26 writes it before every line, into a pipe too and with --ansi never; it writes whole lines at once.
ERASE_LINE = b"\x1b[2K"


@click.command("logs", short_help="Show the log of a deployment.")
@click.argument("name", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--tail", default=200, show_default=True, type=click.IntRange(min=0), help="Lines from the end.")
@click.option("--replica", type=click.IntRange(min=0), help="Which replica, where there are several.")
@connection_options()
def command(name: str | None, follow: bool, tail: int, replica: int | None, connection: Connection) -> None:
    """Show the log of a deployment, or of `open-webui`.

    \b
    Example:
      onprem-llm logs tiny
      onprem-llm logs -f open-webui
    """
    with output.glimpse() as progress:
        current = look(connection, progress).current
    name = name or only_deployment(current.book)
    found = places(current, name)
    place = next((p for p in found if replica is None or p.project.name == f"{name}-{replica}"), None)
    if place is None:
        have = ", ".join(p.project.name for p in found)
        raise InvalidError(f"{name} has no replica {replica}; it has: {have}", hint="onprem-llm status")
    if len(found) > 1:
        output.note(f"{place.project.name} on {place.host.name}; others: --replica N")
    for chunk in stream(place.host.name, _argv(place, follow, tail), connection):
        sys.stdout.buffer.write(chunk.replace(ERASE_LINE, b""))
        sys.stdout.buffer.flush()


def _argv(place: Place, follow: bool, tail: int) -> list[str]:
    argv = ["docker", "compose", "--project-directory", place.project.path, "logs", "--no-log-prefix", "--no-color"]
    return [*argv, "--tail", str(tail), *(["--follow"] if follow else [])]
