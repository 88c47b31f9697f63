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
TICKS = os.sysconf("SC_CLK_TCK")
BLUR_S = 2 / TICKS


class Describer(Protocol):
    """What `Askers` can say of a process."""

    def network(self, pid: int) -> str:
        """Return which network it is in; "" for one that is gone."""

    def describe(self, pid: int) -> dict[str, object]:
        """Return what is known of it."""


@dataclass
class Known:
    """A process as it was when it was last there; times as `since_boot` has them."""

    network: str
    found: dict[str, object]
    began: float
    seen: float
    gone: float | None = None


def since_boot() -> float:
    """Return seconds since the machine's boot: the clock of processes' beginnings."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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
        now = since_boot()
        newest = int((self._proc / "loadavg").read_text("ascii").split()[-1])
        fresh = range(max(self._newest, newest - MOST_AT_ONCE) + 1, newest + 1)
        self._newest = newest
        young = [pid for pid, one in self._known.items() if one.gone is None and now - one.began < YOUNG_S]
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
            elif one.gone is None:
                one.gone = now
            elif now - one.gone > ENDED_S:
                del self._known[pid]

    def _see(self, pid: int, now: float) -> None:
        network = self._askers.network(pid)
        if not network and pid in self._known:
            self._known[pid].gone = now
        # Threads have numbers of the same kind, and are no processes.
        if not network or not os.access(self._proc / str(pid) / "task" / str(pid), os.F_OK) or self._is_thread(pid):
            return
        found = self._askers.describe(pid)
        # Of one that is ending only the name is left; what it was called is known from before.
        if str(found["command"]).startswith("[") and pid in self._known:
            return
        self._known[pid] = Known(network, found, self._began(pid), now)

    def _began(self, pid: int) -> float:
        """Return when a process began, to the hundredth of a second; now, if it is gone."""
        try:
            # The name stands in parentheses and may hold anything.
            return (
                int((self._proc / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
                / TICKS
            )
        except (OSError, IndexError):
            return since_boot()

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

    def ended(self, network: str | None, moment: float) -> list[dict[str, object]]:
        """Return those of `network` (None: of all) that were there at that moment, and are not any more.

        As far as is known; each with the network that it was in.
        """
        running = self._running()
        gone = [
            (one.seen, pid)
            for pid, one in self._known.items()
            if network in (None, one.network)
            and pid not in running
            and one.began <= moment + BLUR_S
            and (one.gone is None or one.gone >= moment - BLUR_S)
        ]
        ordered = [self._known[pid] for _, pid in sorted(gone, reverse=True)]
        return [{**one.found, "network": one.network} for one in ordered]
