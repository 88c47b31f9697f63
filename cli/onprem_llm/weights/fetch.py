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
from onprem_llm.weights.patience import Patience, Waits, asked_wait

FULL = {errno.ENOSPC, errno.EDQUOT}


class StoppedError(Exception):
    """Another file failed, or a person pressed Ctrl-C."""


@dataclass(slots=True)
class Fetcher:
    """Brings files of the model `label` into parts.

    `opener` asks the hub, `moved` hears how many bytes came or were thrown away, `waiting` why there are none.
    """

    label: str
    opener: Callable[[HubFile, int], Body]
    moved: Callable[[int], None]
    waiting: Callable[[str], None]
    patience: Patience = field(default_factory=Patience)
    stop: Event = field(default_factory=Event)

    def fetch(self, file: HubFile, part: Path) -> None:
        """Fill `part` up to the file's size.

        WrongBodyError where the hub sends something else, of which nothing is in the part then; OnpremError where the
        file cannot be had now.
        """
        part.touch()
        if part.stat().st_size > file.size:
            self.discard(part)
        best, waits = part.stat().st_size, Waits(self.patience)
        while part.stat().st_size < file.size:
            if self.stop.is_set():
                raise StoppedError
            try:
                self._go_on(file, part)
            except TemporaryError as error:
                if (have := part.stat().st_size) > best:
                    best = have
                    waits.came()
                self._wait(file, error, waits, have)

    def _go_on(self, file: HubFile, part: Path) -> None:
        have = part.stat().st_size
        body = self.opener(file, have)
        try:
            _check_announced(file, body)
            if body.start == have:
                self._append(file, part, part, body)
            else:
                # The server does not know ranges. What it sends may be cut, too, or no file at all: what is here
                # stays until there is more.
                self._append(file, part, _beside(part), body)
        finally:
            body.close()
        if part.stat().st_size <= min(have, file.size - 1):
            raise TemporaryError(f"the hub sent nothing beyond {part.stat().st_size} of {file.size} bytes")

    def _append(self, file: HubFile, part: Path, target: Path, body: Body) -> None:
        """Write an answer to the end of `target`, which becomes the part once it has more."""
        began = have = part.stat().st_size
        if target != part:
            target.unlink(missing_ok=True)
        count = have if target == part else 0
        try:
            # Unbuffered: what has come is on the disk, whatever kills us next.
            with target.open("ab", buffering=0) as stream:
                for data in body.chunks:
                    count += len(data)
                    if count > file.size:
                        if have != began:  # Some of these bytes are in the part.
                            self.discard(part)
                        raise WrongBodyError(f"more than {file.size} bytes")
                    stream.write(data)
                    if target != part and count > have:
                        target.replace(part)
                        target = part
                    if target == part:
                        self.moved(count - have)
                        have = count
                    if self.stop.is_set():
                        raise StoppedError
        except OSError as error:
            raise disk_error(error, part, f"{self.label}: {file.path}") from None
        finally:
            if target != part:
                target.unlink(missing_ok=True)

    def discard(self, part: Path) -> None:
        """Throw away what has come of a file, and begin anew."""
        self.moved(-part.stat().st_size)
        part.unlink()
        part.touch()

    def _wait(self, file: HubFile, error: TemporaryError, waits: Waits, have: int) -> None:
        wait = waits.next(error)
        if wait is None:
            raise OnpremError(
                f"{self.label}: {file.path}: {error}{asked_wait(error)}; "
                f"{human_bytes(have)} of {human_bytes(file.size)} are here",
                hint="run the same command again later: it goes on where this one stopped",
            )
        self.waiting(f"{file.path}: {error}: asked again in {wait:.0f} s")
        if self.stop.wait(wait):
            raise StoppedError


def _check_announced(file: HubFile, body: Body) -> None:
    """Compare what the server says of its answer with the listing, before a byte of it is kept."""
    whole = None if body.length is None else body.start + body.length
    if whole == file.size:
        return
    if "html" in body.kind:
        # A proxy's or a portal's page, which goes away when somebody has logged in: what is here stays.
        size = "" if whole is None else f" of {whole} bytes"
        raise TemporaryError(f"found a web page{size}, expected {file.size} bytes of the file")
    if whole is not None:
        raise WrongBodyError(f"{whole} bytes, expected {file.size}")


def _beside(part: Path) -> Path:
    return part.with_name(part.name + ".anew")


def disk_error(error: OSError, path: Path, what: str) -> OnpremError:
    """Say that the disk is full, or what else it refuses."""
    if error.errno not in FULL:
        return OnpremError(f"{path}: {error.strerror}", hint="mend the folder's rights or its disk, and run it again")
    free = shutil.disk_usage(path.parent).free
    return OnpremError(
        f"{what}: the disk is full: {human_bytes(free)} free in {path.parent}",
        hint="make room there and run the same command again: it goes on where this one stopped",
    )
