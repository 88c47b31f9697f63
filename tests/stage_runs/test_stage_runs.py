"""Stages as processes of their own: what scenarios import, and what a signal leaves of a run."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import stages


def test_scenarios_can_be_read() -> None:
    # They run seldom: what they import may have moved since. In one process no two rooms without a package may have a
    # file of one name.
    rooms = [f"tests/{room}" for room in ("faults", "system", "driver", "fit", "network")]
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:anyio", *rooms]
    seen = subprocess.run(words, cwd=stages.ROOT, capture_output=True, text=True, check=False)
    assert seen.returncode == 0, seen.stdout


STOPPED = """
import os, sys
from tests import stage_processes, stages

stage_processes.GRACE = 5 if len({commands!r}) > 1 else 20
found = [stages.Stage(name, command) for name, command in {commands!r}]
stages.checks = lambda kind: found
stages.take_signals()
if len(found) > 1:
    sys.exit(stages.main("check"))
stages.run(found[0], dict(os.environ))
"""


@pytest.mark.parametrize("side", [True, False], ids=["side by side", "one after another"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_runs_and_all_that_it_started(tmp_path: Path, how: signal.Signals, side: bool) -> None:
    """Whether it tidies up, or does not hear."""
    tidy = f"trap 'echo > {tmp_path}/tidied; exit 1' INT; sleep 600 & echo $! > {tmp_path}/tidy; wait"
    deaf = f"trap '' INT; sleep 600 & echo $! > {tmp_path}/deaf; wait"
    commands = [("tidy", tidy), ("deaf", deaf)] if side else [("tidy", tidy)]
    names, script = [name for name, _ in commands], STOPPED.format(commands=commands)
    began = subprocess.Popen([sys.executable, "-c", script], cwd=stages.ROOT, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in names))
        began.send_signal(how)
        said = began.communicate(timeout=30)[0]
    finally:
        began.kill()
    assert began.returncode != 0
    assert (tmp_path / "tidied").exists()
    until(lambda: not any(runs(int((tmp_path / name).read_text())) for name in names))
    assert ("Where the time went" in said) == side


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Tell whether a process does: one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False
