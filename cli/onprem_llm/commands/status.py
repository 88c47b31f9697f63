"""`onprem-llm status`: deployments, replicas and gateways, read from the hosts."""

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, UnreachableError, UsageError
from onprem_llm.hosts import HostState
from onprem_llm.look import View, failures_text, look, unexpected
from onprem_llm.options import connection_options
from onprem_llm.run_events import HostFailure
from onprem_llm.running import running
from onprem_llm.running_rows import Running
from onprem_llm.scheduling import schedule_lines
from onprem_llm.service import Deployed, GatewayHost, deployed, gateway_hosts, worries
from onprem_llm.silent_gateways import silent_gateways
from onprem_llm.wanted import load_site

DEPLOYMENTS: Final = ("deployment", "revision", "ready", "requests", "routing", "address")
REPLICAS: Final = (
    *("replica", "host", "gpus", "revision", "state", "health", "rotation", "sessions", "up", "image", "address"),
)


@click.command("status", short_help="Show what runs where.")
@click.option("--watch", is_flag=False, flag_value=2.0, type=click.FloatRange(min=1), metavar="[SECONDS]",
              help="Draw it again and again, so long after each look; 2 where no number is given.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options()
def command(watch: float | None, as_json: bool, connection: Connection) -> None:
    """Show deployments (ready of wanted replicas, requests now, address), then every replica, and what is wrong.

    Read from the hosts, never remembered. Exit code 4 if a host did not answer; what the others said is shown all the
    same.

    \b
    Example:
      onprem-llm status
      onprem-llm status --watch 5
      onprem-llm status --json | jq '.replicas[].health'
    """
    if watch is not None:
        _watch(watch, connection, as_json=as_json)
        return
    with output.glimpse() as progress:
        seen = see(look(connection, progress), connection)
    if as_json:
        output.show_json(seen.as_json())
    else:
        output.say(tables(seen))
    for note in seen.notes:
        output.note(note)
    silent = unexpected(seen.view, connection)
    if silent:
        raise UnreachableError(
            f"{len(silent)} host{'s' if len(silent) > 1 else ''} did not answer; what runs there is unknown",
            details=failures_text(silent),
            hint="mend what is said above; --skip-unreachable shows the others and no error",
        )


@dataclass(frozen=True)
class Seen:
    """Everything that status shows of one look."""

    view: View
    deployments: list[Deployed]
    replicas: list[Running]
    gateways: list[GatewayHost]
    notes: list[str]

    @property
    def failures(self) -> tuple[HostFailure, ...]:
        """The hosts that did not answer."""
        return self.view.failures

    def as_json(self) -> dict[str, object]:
        """Return what --json prints."""
        current = self.view.current
        gateway = current.gateway
        return {
            "gateway": gateway.name if gateway else None,
            "gateways": [one.as_json() for one in self.gateways],
            "deployments": [one.as_json() for one in self.deployments],
            "replicas": [row.as_json() for row in self.replicas],
            "hosts": [_host_json(host) for host in current.hosts]
            + [{"name": one.host, "answered": False, "error": one.message, "problems": []} for one in self.failures],
            "lock": {"owner": gateway.lock.owner, "age": gateway.lock.age} if gateway and gateway.lock else None,
            "notes": self.notes,
        }


def _host_json(host: HostState) -> dict[str, object]:
    return {
        "name": host.name,
        "answered": True,
        "error": None,
        "problems": list(host.problems),
        "healer": host.healer,
        "certificates": {name: certificate.not_after for name, certificate in host.certificates.items()},
    }


def see(view: View, connection: Connection) -> Seen:
    """Make everything that status shows of what the hosts said."""
    now = datetime.now(UTC)
    notes = []
    try:
        site = load_site(view.current, connection.inventory)
    except InvalidError as error:  # status shows what runs, whatever is wrong with the settings
        site = None
        notes.append(f"The site's settings cannot be read, so the gateway's address is not known: {error.message}")
    rows, gateways = running(view.current, now), gateway_hosts(view.current, site)
    notes += worries(site, view.current, rows, gateways, silent_gateways(view, connection), now)
    notes += [
        f"{host.name}: this part could not be looked at: {problem}"
        for host in view.current.hosts
        for problem in host.problems
    ]
    notes += schedule_lines(view.current)
    return Seen(view, deployed(view.current, rows, gateways), rows, gateways, [*_lock(view), *notes])


def tables(seen: Seen) -> str:
    """Lay out deployments and replicas."""
    if not seen.replicas and not seen.deployments:
        if not seen.view.current.hosts:
            return "No host answered."
        return f"Nothing is deployed on {'the hosts that answered' if seen.failures else 'these hosts'}."
    parts = [output.table_text(DEPLOYMENTS, [_deployment_cells(one) for one in seen.deployments])]
    parts.append(output.table_text(REPLICAS, [_replica_cells(row) for row in seen.replicas]))
    return "\n\n".join(parts if seen.deployments else parts[1:])


def _deployment_cells(one: Deployed) -> tuple[object, ...]:
    wanted = one.wanted if one.wanted is not None else "?"
    ready = f"{one.ready}/{wanted}" + (f" ({one.bounds})" if one.bounds else "")
    return one.name, one.revision, ready, one.requests, one.routing, one.address


def _replica_cells(row: Running) -> tuple[object, ...]:
    up = output.human_seconds(row.up_seconds) if row.up_seconds is not None else None
    gpus = ",".join(row.gpus) or None
    place = (row.project, row.hosts, gpus, row.revision)
    if row.scheduled_off:
        return *place, "off (schedule)", None, None, None, None, row.image, row.address
    return *place, row.state, row.health, row.rotation, row.sessions, up, row.image, row.address


def _lock(view: View) -> list[str]:
    gateway = view.current.gateway
    if not gateway or not gateway.lock:
        return []
    age = output.human_seconds(gateway.lock.age) if gateway.lock.age is not None else "an unknown time"
    return [f"Locked by {gateway.lock.owner} for {age}"]


def _watch(seconds: float, connection: Connection, *, as_json: bool) -> None:
    """Look and draw until Ctrl-C. The last drawing stays on the terminal."""
    if as_json or not sys.stdout.isatty():
        raise UsageError(
            "--watch draws on a terminal" + (", and --json is for programs" if as_json else ", and there is none"),
            hint="run onprem-llm status --json as often as you need",
        )
    from rich.console import Console  # 60 ms: only where it is seen
    from rich.live import Live
    from rich.text import Text

    shown = "Looking at the hosts"
    try:
        with Live(Text(shown), console=Console(highlight=False), screen=True, auto_refresh=False) as live:
            while True:
                shown = _frame(connection, seconds)
                live.update(Text(shown, no_wrap=True, overflow="ellipsis"), refresh=True)
                time.sleep(seconds)
    except KeyboardInterrupt:
        output.say(shown)


def _frame(connection: Connection, seconds: float) -> str:
    """Return one drawing; an error of one look is shown and does not end the watch."""
    at = datetime.now().astimezone().strftime("%H:%M:%S")
    try:
        seen = see(look(connection), connection)
    except OnpremError as error:
        return f"{at}  {error.message}\n{error.hint or ''}"
    silent = failures_text(seen.failures)
    head = f"{at}, every {seconds:g} s and the time of a look; Ctrl-C ends"
    return "\n\n".join(part for part in (head, tables(seen), "\n".join(seen.notes), silent) if part)
