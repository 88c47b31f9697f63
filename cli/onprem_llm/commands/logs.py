"""`onprem-llm logs`: what the containers of a deployment, of the gateway or of the page say."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.look import View, failures_text, look, require_an_answer
from onprem_llm.options import connection_options
from onprem_llm.ray_logs import LogElsewhere, RayLog, ray_logs
from onprem_llm.running import Place, book_of, only_deployment, places
from onprem_llm.ssh import routes
from onprem_llm.ssh_many import Lines, Streams

# Compose 2.26 writes it before every line, into a pipe too and with --ansi never; it writes whole lines at once.
ERASE_LINE = b"\x1b[2K"


@click.command("logs", short_help="Show the log of a deployment.")
@click.argument("name", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--tail", default=200, show_default=True, type=click.IntRange(min=0), help="Lines from the end of each.")
@click.option("--replica", type=click.IntRange(min=0), help="This replica alone.")
@connection_options()
def command(name: str | None, follow: bool, tail: int, replica: int | None, connection: Connection) -> None:
    """Show the log of a deployment's replicas, of `gateway`, or of `open-webui`.

    Replicas on Ray have names, which status shows; of a node itself: `ray-head`, `ray-worker`.

    \b
    Example:
      onprem-llm logs tiny
      onprem-llm logs tiny --replica 1
      onprem-llm logs tiny-k3v9x0ab
      onprem-llm logs -f gateway
    """
    with output.glimpse() as progress:
        view = look(connection, progress)
    require_an_answer(view)
    if view.failures:  # before what may not be found for that
        output.note(f"Not asked, for these did not answer:\n{failures_text(view.failures)}")
    found = chosen(view, name or only_deployment(book_of(view.current)), replica)
    errors = _print(found, follow, tail, connection)
    if errors:
        raise errors[0] if len(found) == 1 else _joined(errors)


def chosen(view: View, name: str, replica: int | None) -> dict[str, Place | RayLog | LogElsewhere]:
    """Return label -> place of what is to be shown, in the order of replicas. Two gateways are told by their hosts."""
    on_ray = ray_logs(view.current, book_of(view.current), name)
    if on_ray:
        if replica is not None:
            raise InvalidError(
                f"{name} is on Ray, whose replicas have names, not numbers",
                hint=f"onprem-llm logs {next(iter(on_ray))}",
            )
        return {**on_ray}
    found = sorted(places(view.current, name), key=lambda place: (_number(place), place.project.name))
    if replica is not None:
        have = ", ".join(place.project.name for place in found)
        found = [place for place in found if _number(place) == replica]
        if not found:
            raise InvalidError(f"{name} has no replica {replica}; it has: {have}", hint="onprem-llm status")
    times = Counter(place.project.name for place in found)
    return {place.host.name if times[place.project.name] > 1 else place.project.name: place for place in found}


def _number(place: Place) -> int:
    label = place.project.label("replica") or place.project.name.rpartition("-")[2]
    return int(label) if label.isdigit() else -1


def _print(
    found: Mapping[str, Place | RayLog | LogElsewhere], follow: bool, tail: int, connection: Connection
) -> list[OnpremError]:
    """Print every log; return the errors of those that failed."""
    hosts = list(dict.fromkeys(place.host.name for place in found.values()))
    known = routes(connection, hosts)
    groups = [found] if follow else [{label: place} for label, place in found.items()]
    width = max(map(len, found)) if len(found) > 1 else None
    errors = []
    for group in groups:
        with Streams() as streams:
            for label, place in group.items():
                streams.start(label, known[place.host.name], _argv(place, follow, tail))
            errors += _drain(streams, list(group), width)
    return errors


def _drain(streams: Streams, labels: Sequence[str], width: int | None) -> list[OnpremError]:
    """Print lines as they come, whole ones, so that those of several do not mix."""
    lines = {label: Lines() for label in labels}
    errors = []
    while streams.running:
        for piece in streams.read():
            whole = lines[piece.name].add(piece.data)
            if piece.ended:
                whole += lines[piece.name].end()
            start = f"{piece.name.ljust(width)} | ".encode() if width else b""
            sys.stdout.buffer.write(b"".join(start + line.replace(ERASE_LINE, b"") + b"\n" for line in whole))
            if piece.error:
                errors.append(piece.error)
                if streams.running:
                    output.note(f"{piece.error.message}; the others go on")
        sys.stdout.buffer.flush()
    return errors


def _argv(place: Place | RayLog | LogElsewhere, follow: bool, tail: int) -> list[str]:
    if isinstance(place, RayLog | LogElsewhere):
        return place.argv(follow, tail)
    argv = ["docker", "compose", "--project-directory", place.project.path, "logs", "--no-log-prefix", "--no-color"]
    return [*argv, "--tail", str(tail), *(["--follow"] if follow else [])]


def _joined(errors: Sequence[OnpremError]) -> OnpremError:
    return OnpremError(
        f"{len(errors)} logs could not be read to their end",
        details="\n".join(f"{error.message}\n{error.details or ''}".strip() for error in errors),
        hint=errors[0].hint,
        exit_code=errors[0].exit_code,
    )
