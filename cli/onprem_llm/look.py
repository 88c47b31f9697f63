"""Ask the hosts what they are and what runs on them: one Ansible run, one task, nothing changed."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.output import Progress, note
from onprem_llm.probe import parse_current
from onprem_llm.remedies import remedy
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.ssh import routes

# Hosts that the book says these of need not answer: nothing that counts is there.
GONE = ("lost", "removed")


@dataclass(frozen=True)
class View:
    """What one look returned: the hosts, why some did not answer, and the salt of its fingerprints."""

    current: Current
    failures: tuple[HostFailure, ...]
    salt: str


def look(connection: Connection, progress: Progress | None = None) -> View:
    """Probe every host of the inventory. Hosts that do not answer are in `failures`, not an exception."""
    result, salt = _probe(connection, progress)
    return View(current_of(result), result.failures, salt)


def look_whole(connection: Connection, progress: Progress | None = None, *, again: bool = False) -> View:
    """As `look`, but every host must answer: what a change is planned on must be known.

    Left out are the hosts outside of a limit (its gateways never), those that the book calls lost or removed, and with
    `skip_unreachable` those that do not answer. They are `unreachable` then, and their replicas stay what the book
    says. `again`: a person has been told of them.
    """
    result, salt = _probe(connection, progress)
    if connection.limit:
        result = _with_gateways(result, connection, salt, progress)
    current = current_of(result)
    gating = unexpected(View(current, result.failures, salt), connection)
    left_out = [one for one in result.failures if one not in gating]
    hint = "mend what is said above and run the same command again"
    if all(one.unreachable for one in gating):
        hint += "; or leave out what does not answer: --skip-unreachable; gone for good: host remove HOST --lost"
    raise_for_failures(replace(result, failures=gating), doing="looking at the hosts (nothing was changed)", hint=hint)
    if left_out and not again:
        note(
            f"Left out, they do not answer: {', '.join(one.host for one in left_out)}. What they run is left as it is."
        )
    return View(current, tuple(left_out), salt)


def unexpected(view: View, connection: Connection) -> tuple[HostFailure, ...]:
    """Return the failures that are an error: not those of hosts that are left out, or that the book calls gone."""
    gone = {*connection.may_be_silent, *(name for name, mark in view.current.marks.items() if mark.state in GONE)}
    return tuple(
        one for one in view.failures if not one.unreachable or not (connection.skip_unreachable or one.host in gone)
    )


def _with_gateways(result: RunResult, connection: Connection, salt: str, progress: Progress | None) -> RunResult:
    """Add the gateways that a limit leaves out, and the names of all others: what they run is not to be seen."""
    names = list(routes(replace(connection, limit=None)))
    beyond = [name for name in names if name not in result.hosts]
    if not beyond:
        return result
    others, _ = _probe(replace(connection, limit=None), progress, salt=salt, hosts=beyond)
    gateways = {
        host: values
        for host, values in others.returned.items()
        if (book := values.get("probe", {}).get("book")) and (book.get("gateway") or book.get("second"))
    }
    found = {**result.returned, **gateways}
    return replace(result, hosts=tuple(names), returned={name: found[name] for name in names if name in found})


def _probe(
    connection: Connection, progress: Progress | None, *, salt: str | None = None, hosts: Sequence[str] | None = None
) -> tuple[RunResult, str]:
    salt = salt or secrets.token_hex(8)
    variables = {"onprem_llm_salt": salt}
    title = "Looking at the hosts"
    return run("probe.yml", connection, hosts=hosts, variables=variables, progress=progress, title=title), salt


def current_of(result: RunResult) -> Current:
    """Make typed hosts of what the probe returned."""
    probes = {host: values["probe"] for host, values in result.returned.items() if "probe" in values}
    return parse_current(probes, [host for host in result.hosts if host not in probes])


def gateway_of(view: View) -> HostState:
    """Return the recorded gateway; say why there is none."""
    gateway = view.current.gateway
    if gateway is not None:
        return gateway
    if view.failures:
        raise UnreachableError(
            "no host that answered is the gateway, and some did not answer",
            details=failures_text(view.failures),
            hint="mend the hosts above; if the gateway host is gone for good: onprem-llm restore FILE --gateway HOST",
        )
    raise UnreachableError("no host of this inventory is prepared", hint="run: onprem-llm bootstrap INVENTORY")


def failures_text(failures: Sequence[HostFailure]) -> str:
    """Lay out why hosts did not answer, each with what to do."""
    lines = []
    for failure in failures:
        advice = remedy(failure.message, failure.host)
        lines.append(f"{failure.host}: {failure.message.strip()}" + (f"\n    what to do: {advice}" if advice else ""))
    return "\n".join(lines)
