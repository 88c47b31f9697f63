"""Ask the hosts what they are and what runs on them: one Ansible run, one task, nothing changed."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError
from onprem_llm.hosts import Current, HostState
from onprem_llm.output import Progress, note
from onprem_llm.planning.out_of_sight import awaited, unseen_gateways
from onprem_llm.probe import parse_current
from onprem_llm.probe_values import mapping
from onprem_llm.recorded import GONE
from onprem_llm.remedies import remedy
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.ssh import Route, routes

# The inventory's group of gateway hosts.
GATEWAY_GROUP = "gateway"


@dataclass(frozen=True)
class View:
    """What one look returned: the hosts, why some did not answer, and the salt of its fingerprints."""

    current: Current
    failures: tuple[HostFailure, ...]
    salt: str


def look(connection: Connection, progress: Progress | None = None) -> View:
    """Probe every host of the inventory. Hosts that do not answer are in `failures`, not an exception."""
    result, salt = _probe(connection, progress)
    return View(_with_ray(current_of(result), connection, progress), result.failures, salt)


def look_whole(connection: Connection, progress: Progress | None = None, *, again: bool = False) -> View:
    """As `look`, but every host must answer: what a change is planned on must be known.

    Left out are the hosts outside of a limit (gateway hosts never), those that the book calls lost or removed, and with
    `skip_unreachable` those that do not answer. They are `unreachable` then, and their replicas stay what the book
    says. `again`: a person has been told of them.
    """
    result, salt = _probe(connection, progress)
    left_out: tuple[str, ...] = ()
    if connection.limit:
        result, left_out = _with_gateways(result, connection, salt, progress)
    current = replace(current_of(result), left_out=left_out)
    gating = unexpected(View(current, result.failures, salt), connection)
    silent = [one for one in result.failures if one not in gating]
    hint = "mend what is said above and run the same command again"
    if all(one.unreachable for one in gating):
        hint += "; or leave out what does not answer: --skip-unreachable; gone for good: host remove HOST --lost"
    raise_for_failures(replace(result, failures=gating), doing="looking at the hosts (nothing was changed)", hint=hint)
    if silent and not again:
        note(f"Left out, they do not answer: {', '.join(one.host for one in silent)}. What they run is left as it is.")
    return View(_with_ray(current, connection, progress), tuple(silent), salt)


def _with_ray(current: Current, connection: Connection, progress: Progress | None) -> Current:
    """Add what a Ray cluster says that the site's settings have at an address."""
    gateway = current.gateway
    if gateway is None or not mapping(gateway.site.get("ray")).get("address"):
        return current
    from onprem_llm.ray_elsewhere import with_ray  # few sites have one

    return with_ray(current, gateway, connection, progress)


def unexpected(view: View, connection: Connection) -> tuple[HostFailure, ...]:
    """Return the failures that are an error: not those of hosts that are left out, or that the book calls gone."""
    gone = {*connection.may_be_silent, *(name for name, mark in view.current.marks.items() if mark.state in GONE)}
    return tuple(
        one for one in view.failures if not one.unreachable or not (connection.skip_unreachable or one.host in gone)
    )


def _with_gateways(
    result: RunResult, connection: Connection, salt: str, progress: Progress | None
) -> tuple[RunResult, tuple[str, ...]]:
    """Add the gateway hosts that a limit leaves out, silent ones too; and name all others, which are not to be seen."""
    ways = routes(replace(connection, limit=None))
    names = list(ways)
    beyond = [name for name in names if name not in result.hosts]
    if not beyond:
        return result, ()
    others, _ = _probe(replace(connection, limit=None), progress, salt=salt, hosts=beyond)
    gateways = {
        host: values
        for host, values in others.returned.items()
        if (book := values.get("probe", {}).get("book")) and (book.get("gateway") or book.get("second"))
    }
    whole = replace(result, hosts=tuple(names), returned={**result.returned, **others.returned})
    silent = may_be_gateways(current_of(whole), ways)
    found = {**result.returned, **gateways}
    result = replace(
        whole,
        returned={name: found[name] for name in names if name in found},
        failures=(*result.failures, *(one for one in others.failures if one.host in silent)),
    )
    return result, tuple(name for name in beyond if name not in gateways and name not in silent)


def may_be_gateways(current: Current, ways: Mapping[str, Route]) -> list[str]:
    """Name the hosts that did not answer and may be gateway hosts: the group's, else all where one is missing."""
    silent = awaited(current)
    members = [name for name in silent if name in ways and GATEWAY_GROUP in ways[name].groups]
    missing = current.gateway is None or unseen_gateways(current)
    return members or (list(silent) if missing else [])


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


def require_an_answer(view: View) -> None:
    """Raise where no host answered: what runs on them is not known, rather than nothing."""
    if view.failures and not view.current.hosts:
        raise UnreachableError(
            "no host answered", details=failures_text(view.failures), hint="mend what is said above and run it again"
        )


def failures_text(failures: Sequence[HostFailure]) -> str:
    """Lay out why hosts did not answer, each with what to do."""
    lines = []
    for failure in failures:
        advice = remedy(failure.message, failure.host)
        lines.append(f"{failure.host}: {failure.message.strip()}" + (f"\n    what to do: {advice}" if advice else ""))
    return "\n".join(lines)
