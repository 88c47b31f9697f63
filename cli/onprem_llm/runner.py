"""One Ansible run: a playbook, its hosts, its variables, its events as progress. The only import of ansible_runner."""

import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onprem_llm.ansible_settings import all_or_none, environment, log_nothing
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, UnreachableError
from onprem_llm.output import Progress
from onprem_llm.private_files import password_arguments, private_folder, write_private
from onprem_llm.remedies import not_begun, remedy
from onprem_llm.resources import folder
from onprem_llm.run_events import Collector, HostFailure, RunResult
from onprem_llm.run_processes import ByteTail, end_all
from onprem_llm.stop_signals import noted_stops

__all__ = ["Connection", "HostFailure", "RunResult", "raise_for_failures", "run", "run_once"]

# A host can need a passphrase for the jump host, a host key for it, a host key for itself, and a passphrase again.
ATTEMPTS = 4


@dataclass(frozen=True)
class _Task:
    """What one run is asked to do."""

    playbook: Path
    connection: Connection
    limit: str | None
    variables: Mapping[str, Any]
    secrets: Mapping[str, Any]
    unlogged: bool = False
    together: bool = False


def run(
    playbook: str,
    connection: Connection,
    *,
    variables: Mapping[str, Any] | None = None,
    hosts: Sequence[str] | None = None,
    progress: Progress | None = None,
    title: str = "",
    secrets: Mapping[str, Any] | None = None,
    unlogged: bool = False,
    together: bool = False,
    asking: bool = True,
) -> RunResult:
    """Run `playbooks/<playbook>` and return what came of it. Failed hosts are in the result, not an exception.

    `hosts` are names from an earlier run's result and take the place of the connection's limit. `secrets` are
    variables too, kept in a file of their own. `unlogged`: what is returned holds passwords and stays out of the
    user's log_path. `together`: where one host fails, the others do not go on either. A host that could not be
    entered because its key is unknown or our key has a passphrase is tried again once a person has confirmed the one
    or typed the other, if `asking`.
    Raises InvalidError for an inventory that cannot be read or a limit that matches nothing, OnpremError for a run
    that never began, KeyboardInterrupt once everything that was started is gone.
    """
    if progress and title:
        progress.step(title, hosts or ())
    limit = ",".join(hosts) if hosts is not None else connection.limit
    task = _Task(folder("playbooks") / playbook, connection, limit, variables or {}, secrets or {}, unlogged, together)
    result = run_once(task, progress)
    for _ in range(ATTEMPTS):
        if not asking or not any(failure.unreachable for failure in result.failures):
            break
        from onprem_llm.access import open_up  # asks people; most runs never need it

        result, again = open_up(result, connection, progress)
        if not again:
            break
        # The others ended with it, in the midst of what they did.
        again = result.hosts if together else again
        result = _joined(result, run_once(replace(task, limit=",".join(again)), progress), again)
    return result


def run_once(task: _Task, progress: Progress | None = None) -> RunResult:
    """Run a playbook once, and ask nobody anything."""
    collector = Collector(progress)
    with private_folder() as private, ByteTail(private / "progress", progress), noted_stops() as stopped:
        _start(task, private, collector, stopped)
        if stopped.is_set():
            end_all(private)
            raise KeyboardInterrupt
    if collector.stats is None or not collector.order:
        if collector.order:
            raise OnpremError(f"ansible-playbook gave up in the middle of {task.playbook.name}", details=collector.said)
        raise not_begun(collector.talk, task.connection.inventory, task.limit)
    return collector.result()


def raise_for_failures(result: RunResult, *, doing: str, hint: str | None = None) -> None:
    """Raise one OnpremError that names every host that dropped out, why, and what to do; the others' state is said.

    `doing` completes "… failed while <doing>".
    """
    if not result.failures:
        return
    bad = {failure.host for failure in result.failures}
    well = [host for host in result.hosts if host not in bad]
    lines = [_describe(failure) for failure in result.failures]
    lines.append(f"ok: {', '.join(well)}" if well else "no other hosts took part")
    kind = UnreachableError if any(failure.unreachable for failure in result.failures) else OnpremError
    message = f"{len(bad)} of {len(result.hosts)} hosts failed while {doing}: {', '.join(sorted(bad))}"
    raise kind(message, details="\n".join(lines), hint=hint or "mend what is said above and run the same command again")


def _describe(failure: HostFailure) -> str:
    kind = "unreachable" if failure.unreachable else "failed"
    text = "\n".join(f"    {line}" for line in failure.message.splitlines())
    advice = remedy(failure.message, failure.host, reached=not failure.unreachable)
    return f"{failure.host}: {kind} at “{failure.task}”\n{text}" + (f"\n    what to do: {advice}" if advice else "")


def _joined(before: RunResult, after: RunResult, again: Sequence[str]) -> RunResult:
    """Take what the second run says for the hosts that it was for."""
    kept = {host: value for host, value in before.returned.items() if host not in again}
    return RunResult(
        hosts=before.hosts,
        returned={**kept, **after.returned},
        changed={**before.changed, **after.changed},
        failures=tuple(failure for failure in before.failures if failure.host not in again) + after.failures,
    )


def _start(task: _Task, private: Path, collector: Collector, stopped: threading.Event) -> None:
    import ansible_runner  # 150 ms: only where something is run

    ansible_runner.run(
        private_data_dir=str(private),
        # The user's folder, so that their ansible.cfg and relative key files work as with ansible itself.
        project_dir=str(Path.cwd()),
        playbook=str(task.playbook),
        inventory=str(task.connection.inventory),
        limit=task.limit,
        cmdline=_arguments(task, private),
        envvars=environment(task.connection.forks, private)
        | (log_nothing(private) if task.unlogged else {})
        | (all_or_none() if task.together else {}),
        # No fact cache of the runner's: it would replace the user's.
        fact_cache_type="none",
        # How soon a Ctrl-C is seen, in seconds.
        settings={"pexpect_timeout": 0.2, "suppress_output_file": True},
        # A prompt that somebody's ansible.cfg asks for is answered with nothing: it then fails, and hangs no run.
        passwords={r"(?i)pass(word|phrase)[^\n]*:\s*$": ""},
        quiet=True,
        ident="run",
        event_handler=collector,
        cancel_callback=stopped.is_set,
    )


def _arguments(task: _Task, private: Path) -> str:
    words = password_arguments(task.connection, private)
    for name, values in (("variables", task.variables), ("secrets", task.secrets)):
        if values:
            path = write_private(private / f"{name}.json", json.dumps(_as_text(values)))
            words += ["--extra-vars", f"@{path}"]
    return shlex.join(words)


def _as_text(value: object) -> object:
    """Mark every text as such: Ansible takes the values of extra variables for templates and would run them."""
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, Mapping):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_text(item) for item in value]
    return value
