"""`onprem-llm status`: what runs where, read from the hosts."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError
from onprem_llm.look import View, failures_text, look
from onprem_llm.options import connection_options
from onprem_llm.running import Running, running

COLUMNS = ("deployment", "replica", "host", "gpus", "state", "health", "up", "image", "address")


@click.command("status", short_help="Show what runs where.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options()
def command(as_json: bool, connection: Connection) -> None:
    """Show every replica: host, GPUs, state, health, uptime, image, address. Read from the hosts, never remembered.

    Exit code 4 if a host did not answer; what the others said is shown all the same.

    \b
    Example:
      onprem-llm status
      onprem-llm status --json | jq '.replicas[].health'
    """
    with output.glimpse() as progress:
        view = look(connection, progress)
    rows = running(view.current, datetime.now(UTC))
    if as_json:
        output.show_json(as_document(view, rows))
    elif rows:
        output.show_table(COLUMNS, [_cells(row) for row in rows])
    else:
        output.say("Nothing is deployed on these hosts.")
    _say_lock(view)
    for host in view.current.hosts:
        for problem in host.problems:
            output.note(f"{host.name}: this part could not be looked at: {problem}")
    if view.failures:
        raise UnreachableError(
            f"{len(view.failures)} hosts did not answer; what runs there is unknown",
            details=failures_text(view.failures),
            hint="mend what is said above",
        )


def _cells(row: Running) -> tuple[object, ...]:
    up = output.human_seconds(row.up_seconds) if row.up_seconds is not None else None
    name = row.deployment or row.project
    gpus = ",".join(row.gpus) or None
    return name, row.replica, row.host, gpus, row.state, row.health, up, row.image, row.address


def _say_lock(view: View) -> None:
    gateway = view.current.gateway
    if gateway and gateway.lock:
        age = output.human_seconds(gateway.lock.age) if gateway.lock.age is not None else "an unknown time"
        output.note(f"Locked by {gateway.lock.owner} for {age}")


def as_document(view: View, rows: list[Running]) -> dict[str, object]:
    """Return what --json prints."""
    gateway = view.current.gateway
    return {
        "gateway": gateway.name if gateway else None,
        "deployments": [
            {"name": name, "revision": entry.revision, "recorded_at": entry.recorded_at}
            for name, entry in view.current.book.items()
        ],
        "replicas": [row.as_json() for row in rows],
        "hosts": [_host_json(host.name, None, host.problems) for host in view.current.hosts]
        + [_host_json(failure.host, failure.message) for failure in view.failures],
        "lock": {"owner": gateway.lock.owner, "age": gateway.lock.age} if gateway and gateway.lock else None,
    }


def _host_json(name: str, error: str | None, problems: Sequence[str] = ()) -> dict[str, object]:
    return {"name": name, "answered": error is None, "error": error, "problems": list(problems)}
