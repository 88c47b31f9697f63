"""Ask the hosts what they are and what runs on them: one Ansible run, one task, nothing changed."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.output import Progress
from onprem_llm.probe import parse_current
from onprem_llm.remedies import remedy
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.runner import raise_for_failures, run


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


def look_whole(connection: Connection, progress: Progress | None = None) -> View:
    """As `look`, but every host must answer: what a change is planned on must be known."""
    result, salt = _probe(connection, progress)
    raise_for_failures(result, doing="looking at the hosts (nothing was changed)")
    return View(current_of(result), (), salt)


def _probe(connection: Connection, progress: Progress | None) -> tuple[RunResult, str]:
    salt = secrets.token_hex(8)
    variables = {"onprem_llm_salt": salt}
    return run("probe.yml", connection, variables=variables, progress=progress, title="Looking at the hosts"), salt


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
            hint="mend the hosts above",
        )
    raise UnreachableError("no host of this inventory is prepared", hint="run: onprem-llm bootstrap INVENTORY")


def failures_text(failures: Sequence[HostFailure]) -> str:
    """Lay out why hosts did not answer, each with what to do."""
    lines = []
    for failure in failures:
        advice = remedy(failure.message, failure.host)
        lines.append(f"{failure.host}: {failure.message.strip()}" + (f"\n    what to do: {advice}" if advice else ""))
    return "\n".join(lines)
