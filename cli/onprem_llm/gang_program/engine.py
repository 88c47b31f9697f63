"""A rank's engine: a command in a process group of its own, of which nothing is left in the end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 0.05
KILLED_S = 5.0  # a process in the middle of a system call to a GPU takes its time even after SIGKILL


class Engine:
    """Starts the command, tells when it ended, and ends it with all that it started."""

    def __init__(self, command: tuple[str, ...], ended: Callable[[int], None]) -> None:
        """Call `ended` with the exit code, 128 and more for a signal."""
        self._command, self._ended = command, ended
        self._process: subprocess.Popen[bytes] | None = None
        # What loses its parent becomes our child, as it does where we are process 1 of a container anyway.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self) -> None:
        """Start it. Raises OSError where there is no such command."""
        # In a session of its own: signals reach all of it, and none of them us.
        self._process = subprocess.Popen(self._command, start_new_session=True)

    def reap(self) -> None:
        """Take every dead child off the list of processes; for SIGCHLD."""
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None:
                return
            if self._process is not None and dead.si_pid == self._process.pid:
                code = self._process.wait()
                self._ended(code if code >= 0 else 128 - code)
            else:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(dead.si_pid, 0)

    async def stop(self, grace: float, *, gently: bool) -> bool:
        """End it: SIGTERM, after `grace` seconds SIGKILL. Return whether everything is gone.

        `gently`: as docker does it, the command alone is told, and ends its children as it sees fit. vLLM's answers
        what is under way before it does (--shutdown-timeout), which it cannot where they hear the signal, too.
        """
        if self._process is None:
            return True
        if gently:
            self._process.terminate()
        else:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # one that was stopped would not hear the other
        if not await self._gone(grace):
            self._signal(signal.SIGKILL)
        for pid in descendants():  # those that left the group
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return await self._gone(KILLED_S)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _gone(self, limit: float) -> bool:
        """Wait until no process is left below us, for `limit` seconds at most."""
        end = asyncio.get_running_loop().time() + limit
        while descendants():
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(LOOK_S)
            self.reap()
        return True


def descendants() -> dict[int, str]:
    """Return the processes below us, dead ones that nobody has reaped included: pid -> the kernel's letter for it."""
    there = {pid: seen for pid, seen in map(_seen, Path("/proc").glob("[0-9]*")) if seen is not None}
    found, fresh = set[int](), {os.getpid()}
    while fresh:
        fresh = {pid for pid, (_, parent) in there.items() if parent in fresh} - found
        found |= fresh
    return {pid: there[pid][0] for pid in sorted(found)}


def stopped() -> list[int]:
    """Return the processes below us that somebody stopped (SIGSTOP); one that a debugger holds has another letter."""
    return [pid for pid, letter in descendants().items() if letter == "T"]


def _seen(process: Path) -> tuple[int, tuple[str, int] | None]:
    try:
        # pid (name) state parent …; the name may hold anything, brackets too.
        letter, parent = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        return int(process.name), (letter, int(parent))
    except (OSError, ValueError):
        return int(process.name), None
