"""Which processes ended a moment ago, for what was sent and forgotten by one that was quicker than we are.

The kernel says the number of the newest process in 20 microseconds, so that it can be asked a hundred times a second.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# A new process is read anew for so long: it begins as a copy of its parent, and then becomes a program.
YOUNG_S = 0.3
ALL_S = 0.5
ENDED_S = 2.0
MOST_AT_ONCE = 500


class Describer(Protocol):
    """What `Askers` can say of a process."""

    def network(self, pid: int) -> str:
        """Return which network it is in; "" for one that is gone."""

    def describe(self, pid: int) -> dict[str, object]:
        """Return what is known of it."""


@dataclass
class Known:
    """A process as it was when it was last seen; times as `time.monotonic` has them."""

    network: str
    found: dict[str, object]
    born: float
    seen: float


class Recent:
    """The processes of this host, and those that ended within `ENDED_S`."""

    def __init__(self, askers: Describer, proc: Path = Path("/proc")) -> None:
        """Begin with all that run now."""
        self._askers, self._proc = askers, proc
        self._known: dict[int, Known] = {}
        self._newest, self._listed = 0, 0.0
        self.look()

    def look(self) -> None:
        """See what is new; cheap, to be called often."""
        now = time.monotonic()
        newest = int((self._proc / "loadavg").read_text("ascii").split()[-1])
        fresh = range(max(self._newest, newest - MOST_AT_ONCE) + 1, newest + 1)
        self._newest = newest
        young = [pid for pid, one in self._known.items() if now - one.born < YOUNG_S]
        for pid in {*fresh, *young}:
            self._see(pid, now)
        if now - self._listed >= ALL_S:
            self._see_all(now)

    def _see_all(self, now: float) -> None:
        self._listed = now
        running = self._running()
        for pid in running - self._known.keys():
            self._see(pid, now)
        for pid, one in list(self._known.items()):
            if pid in running:
                one.seen = now
            elif now - one.seen > ENDED_S:
                del self._known[pid]

    def _see(self, pid: int, now: float) -> None:
        network = self._askers.network(pid)
        # Threads have numbers of the same kind, and are no processes.
        if not network or not os.access(self._proc / str(pid) / "task" / str(pid), os.F_OK) or self._is_thread(pid):
            return
        found = self._askers.describe(pid)
        # Of one that is ending only the name is left; what it was called is known from before.
        if str(found["command"]).startswith("[") and pid in self._known:
            return
        known = self._known.get(pid)
        self._known[pid] = Known(network, found, known.born if known else now, now)

    def _is_thread(self, pid: int) -> bool:
        try:
            status = (self._proc / str(pid) / "status").read_bytes()
        except OSError:
            return True
        return b"\nTgid:\t%d\n" % pid not in status

    def _running(self) -> set[int]:
        return {int(name) for name in os.listdir(self._proc) if name.isdigit()}  # noqa: PTH208

    def command(self, pid: int) -> str | None:
        """Return the command line of a process that has none any more."""
        return str(self._known[pid].found["command"]) if pid in self._known else None

    def ended(self, network: str) -> list[dict[str, object]]:
        """Return those of `network` that ended a moment ago, the last one first."""
        running = self._running()
        gone = [(one.seen, pid) for pid, one in self._known.items() if one.network == network and pid not in running]
        return [self._known[pid].found for _, pid in sorted(gone, reverse=True)]
