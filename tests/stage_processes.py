"""Commands of stages as processes that are ended together, with all that they have started."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GRACE = 20  # seconds in which a command that was told to end takes down what it has made
ENDED = 130  # the exit status of one that was not begun any more, as a shell has it after Ctrl-C


class Processes:
    """Each is a session of its own, so that a signal reaches the commands of a command too."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """`folder` is where they run."""
        self._folder, self._environment = folder, environment
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped = threading.Lock(), False

    def shown(self, command: str) -> int:
        """Run one with its output on ours; return its exit status. Ctrl-C ends it."""
        # In a thread: a signal that comes while it or the process is being started must not lose either.
        with ThreadPoolExecutor(1) as pool:
            try:
                return pool.submit(self._run, command, None).result()
            except BaseException:
                self.stop()
                raise

    def kept(self, command: str) -> tuple[int, str]:
        """Run one; return its exit status and what it said. Of several threads, of which another one calls `stop`."""
        # No pipe: whoever is left behind and holds its other end would be waited for.
        with tempfile.TemporaryFile() as output:
            status = self._run(command, output.fileno())
            output.seek(0)
            return status, output.read().decode("utf-8", "replace")

    def _run(self, command: str, output: int | None) -> int:
        errors = None if output is None else subprocess.STDOUT
        with self._lock:
            if self._stopped:
                return ENDED
            process = subprocess.Popen(
                ["bash", "-c", command], cwd=self._folder, env=self._environment, stdout=output, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            self._running.add(process)
        status = process.wait()
        with self._lock:
            self._running.discard(process)
        return status

    def stop(self) -> None:
        """End them as Ctrl-C does, and what goes on after GRACE, or after another Ctrl-C, for good; begin no other."""
        with self._lock:
            self._stopped, running = True, list(self._running)
        _tell(running, signal.SIGINT)
        end = time.monotonic() + GRACE
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                for process in running:
                    process.wait(max(0.0, end - time.monotonic()))
        finally:
            _tell(running, signal.SIGKILL)


def _tell(running: list[subprocess.Popen[bytes]], what: signal.Signals) -> None:
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, what)
