"""Fetch one file: go on where an earlier run was cut off, wait when the hub asks for it, give up with a reason."""

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from onprem_llm.errors import OnpremError
from onprem_llm.output import human_bytes
from onprem_llm.weights.hubs.hub import Body, HubFile, TemporaryError, WrongBodyError

FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to try without getting further, the first wait in seconds (doubled each time), the longest wait."""

    tries: int = 6
    first: float = 1.0
    longest: float = 300.0


class StoppedError(Exception):
    """Another file failed, or a person pressed Ctrl-C."""


@dataclass(slots=True)
class Fetcher:
    """Brings files of the model `label` into parts.

    `opener` asks the hub, `moved` hears of bytes that came or were thrown away, `waiting` why there are none.
    """

    label: str
    opener: Callable[[HubFile, int], Body]
    moved: Callable[[str, int], None]
    waiting: Callable[[str], None]
    patience: Patience = field(default_factory=Patience)
    stop: Event = field(default_factory=Event)

    def fetch(self, file: HubFile, part: Path) -> None:
        """Fill `part` up to the file's size.

        WrongBodyError where the hub sends something else; OnpremError where it cannot be had now.
        """
        part.touch()
        if part.stat().st_size > file.size:
            self.discard(file, part)
        best, tries = part.stat().st_size, 0
        while part.stat().st_size < file.size:
            if self.stop.is_set():
                raise StoppedError
            try:
                self._go_on(file, part)
            except TemporaryError as error:
                have = part.stat().st_size
                tries, best = (0, have) if have > best else (tries + 1, best)
                self._wait(file, error, tries, have)

    def _go_on(self, file: HubFile, part: Path) -> None:
        have = part.stat().st_size
        body = self.opener(file, have)
        try:
            if body.length is not None and body.start + body.length != file.size:
                raise WrongBodyError(
                    f"{body.start + body.length} bytes{' (a web page)' if 'html' in body.kind else ''}, "
                    f"expected {file.size}"
                )
            if body.start != have:
                # The server does not know ranges: what it sends begins at the start, and so do we.
                self.discard(file, part)
            self._append(file, part, body)
        finally:
            body.close()
        if part.stat().st_size <= min(have, file.size - 1):
            raise TemporaryError(f"the hub sent nothing beyond {part.stat().st_size} of {file.size} bytes")

    def _append(self, file: HubFile, part: Path, body: Body) -> None:
        count = part.stat().st_size
        try:
            # Unbuffered: what has come is on the disk, whatever kills us next.
            with part.open("ab", buffering=0) as stream:
                for data in body.chunks:
                    count += len(data)
                    if count > file.size:
                        raise WrongBodyError(f"more than {file.size} bytes")
                    stream.write(data)
                    self.moved(file.path, len(data))
                    if self.stop.is_set():
                        raise StoppedError
        except OSError as error:
            raise disk_error(error, part, f"{self.label}: {file.path}") from None

    def discard(self, file: HubFile, part: Path) -> None:
        """Throw away what has come of a file, and begin anew."""
        self.moved(file.path, -part.stat().st_size)
        part.unlink()
        part.touch()

    def _wait(self, file: HubFile, error: TemporaryError, tries: int, have: int) -> None:
        wait = error.wait if error.wait is not None else self.patience.first * 2 ** max(0, tries - 1)
        if tries >= self.patience.tries or wait > self.patience.longest:
            asked = f", and asks to wait {error.wait:.0f} s" if error.wait is not None else ""
            raise OnpremError(
                f"{self.label}: {file.path}: {error}{asked}; {human_bytes(have)} of {human_bytes(file.size)} are here",
                hint="run the same command again later: it goes on where this one stopped",
            )
        self.waiting(f"{file.path}: {error}: asked again in {wait:.0f} s")
        if self.stop.wait(wait):
            raise StoppedError


def disk_error(error: OSError, path: Path, what: str) -> OnpremError:
    """Say that the disk is full, or what else it refuses."""
    if error.errno not in FULL:
        return OnpremError(f"{path}: {error.strerror}", hint="mend the folder's rights or its disk, and run it again")
    free = shutil.disk_usage(path.parent).free
    return OnpremError(
        f"{what}: the disk is full: {human_bytes(free)} free in {path.parent}",
        hint="make room there and run the same command again: it goes on where this one stopped",
    )
