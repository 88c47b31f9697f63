"""One Ansible run: a playbook, its hosts, its variables, its events as progress. The only import of ansible_runner."""

import json
import os
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from onprem_llm.ansible_settings import environment
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, UnreachableError
from onprem_llm.output import Progress, table_text
from onprem_llm.remedies import not_begun, remedy
from onprem_llm.resources import folder
from onprem_llm.run_events import Collector, HostFailure, RunResult, first_line
from onprem_llm.run_processes import ByteTail, end_all

__all__ = ["Connection", "HostFailure", "RunResult", "raise_for_failures", "run"]


def run(
    playbook: str,
    connection: Connection,
    *,
    variables: Mapping[str, Any] | None = None,
    hosts: Sequence[str] | None = None,
    progress: Progress | None = None,
    title: str = "",
    secrets: Mapping[str, Any] | None = None,
) -> RunResult:
    """Run `playbooks/<playbook>` and return what came of it. Failed hosts are in the result, not an exception.

    `hosts` narrows the connection's limit to these. `secrets` are variables too, kept in a file of their own.
    Raises InvalidError for an inventory that cannot be read or a limit that matches nothing, OnpremError for a run
    that never began, KeyboardInterrupt once everything that was started is gone.
    """
    if progress and title:
        progress.step(title, hosts or ())
    collector = Collector(progress)
    with _private_folder() as private:
        files = _write_files(private, connection, variables or {}, secrets or {})
        limit = _limit(connection, hosts)
        with ByteTail(private / "progress", progress), _interruptible() as stopped:
            _start(folder("playbooks") / playbook, connection, private, files, limit, collector, stopped)
            if stopped.is_set():
                end_all(private)
                raise KeyboardInterrupt
    if collector.stats is None or not collector.order:
        raise not_begun(collector.talk, connection.inventory, limit)
    return collector.result()


def raise_for_failures(result: RunResult, *, doing: str) -> None:
    """Raise one OnpremError that names every host that dropped out, why, and what to do; the others' state is said.

    `doing` completes "… failed while <doing>".
    """
    if not result.failures:
        return
    bad = {failure.host for failure in result.failures}
    well = [host for host in result.hosts if host not in bad]
    lines = [_describe(failure) for failure in result.failures]
    lines.append(f"ok: {', '.join(well)}" if well else "no other hosts took part")
    unreachable = any(failure.unreachable for failure in result.failures)
    kind = UnreachableError if unreachable else OnpremError
    first = result.failures[0]
    message = f"{len(bad)} of {len(result.hosts)} hosts failed while {doing}: {', '.join(sorted(bad))}"
    hint = remedy(first.message, first.host) or "mend what is said above and run the same command again"
    raise kind(message, details="\n".join(lines), hint=hint)


def failures_table(failures: Sequence[HostFailure]) -> str:
    """Lay out failures as a table: host, task, first line of the message."""
    return table_text(["host", "task", "found"], [(f.host, f.task, first_line(f.message)) for f in failures])


def _describe(failure: HostFailure) -> str:
    kind = "unreachable" if failure.unreachable else "failed"
    text = "\n".join(f"    {line}" for line in failure.message.splitlines())
    advice = remedy(failure.message, failure.host)
    return f"{failure.host}: {kind} at “{failure.task}”\n{text}" + (f"\n    what to do: {advice}" if advice else "")


@dataclass(frozen=True)
class _Files:
    """Paths that ansible-playbook gets instead of values in its argv; None where there is nothing to tell."""

    variables: Path
    secrets: Path | None
    become: Path | None
    ssh: Path | None
    vault: Path | None


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Give a fresh 0700 folder, gone afterwards: ansible-runner merges what an older run left in one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    parent = runtime if runtime and os.access(runtime, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="onprem-llm-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_private(path: Path, text: str) -> Path:
    """Write a file that only we can read, from its first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _write_files(
    private: Path, connection: Connection, variables: Mapping[str, Any], secrets: Mapping[str, Any]
) -> _Files:
    def write(name: str, text: str | None) -> Path | None:
        return None if text is None else write_private(private / name, text)

    return _Files(
        variables=write_private(private / "variables.json", json.dumps(dict(variables))),
        secrets=write("secrets.json", json.dumps(dict(secrets)) if secrets else None),
        become=write("become", connection.become_password),
        ssh=write("ssh", connection.ssh_password),
        vault=write("vault", connection.vault_password),
    )


def _limit(connection: Connection, hosts: Sequence[str] | None) -> str | None:
    """Join both limits: `a,b` of the caller, and of these only what the person's limit allows."""
    if hosts is None:
        return connection.limit
    names = ",".join(hosts)
    if not connection.limit:
        return names
    return f"{names},&{connection.limit}" if "," not in connection.limit else names


def _arguments(connection: Connection, files: _Files) -> str:
    words = ["--extra-vars", f"@{files.variables}"]
    if files.secrets:
        words += ["--extra-vars", f"@{files.secrets}"]
    if files.become:
        words += ["--become-password-file", str(files.become)]
    if files.ssh:
        words += ["--connection-password-file", str(files.ssh)]
    for path in (*connection.vault_password_files, *([files.vault] if files.vault else [])):
        words += ["--vault-password-file", str(path)]
    if connection.private_key:
        words += ["--private-key", str(connection.private_key)]
    return shlex.join(words)


def _start(
    playbook: Path,
    connection: Connection,
    private: Path,
    files: _Files,
    limit: str | None,
    collector: Collector,
    stopped: threading.Event,
) -> None:
    import ansible_runner  # 150 ms: only where something is run

    ansible_runner.run(
        private_data_dir=str(private),
        # The user's folder, so that their ansible.cfg and relative key files work as with ansible itself.
        project_dir=str(Path.cwd()),
        playbook=str(playbook),
        inventory=str(connection.inventory),
        limit=limit,
        cmdline=_arguments(connection, files),
        envvars=environment(connection.forks, private),
        # No fact cache of the runner's: it would replace the user's.
        fact_cache_type="none",
        # How soon a Ctrl-C is seen, in seconds.
        settings={"pexpect_timeout": 0.2, "suppress_output_file": True},
        quiet=True,
        ident="run",
        event_handler=collector,
        cancel_callback=stopped.is_set,
    )


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event during a run: an exception inside the runner leaves its children alive."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
