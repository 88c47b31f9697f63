"""One pull of the same weights at a time, and none while they are sent.

The kernel holds the lock, and lets go of it when its owner dies.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onprem_llm.errors import RefusedError
from onprem_llm.person import person

# Who only looks whether a lock is held has it, too, for a moment; such a moment is waited for.
TRIES, LOOKS, PAUSE = 20, 3, 0.05


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock `path`; RefusedError says who has it. A file that a dead owner left behind holds nobody up."""
    with _locked(path, what, fcntl.LOCK_EX):
        yield


@contextmanager
def in_use(path: Path, what: str) -> Iterator[None]:
    """Keep everybody from changing what `path` guards; others may use it at the same time.

    Who may only read the store sends from it, too, though without a lock.
    """
    with contextlib.ExitStack() as stack:
        with _unless_read_only():
            stack.enter_context(_locked(path, what, fcntl.LOCK_SH))
        yield


@contextmanager
def _unless_read_only() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise


def is_held(path: Path) -> bool:
    """Tell whether somebody pulls or sends there now."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return False
    with stream:
        for _ in range(LOOKS):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(PAUSE)
            else:
                return False
    return True


@contextmanager
def _locked(path: Path, what: str, kind: int) -> Iterator[None]:
    handle = _open(path, what, kind)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} of {person()}\n".encode(), 0)
        yield
    finally:
        # The next one must not be told of an owner that is long gone.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
        os.close(handle)


def _open(path: Path, what: str, kind: int) -> int:
    for tries in itertools.count(1):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            if tries < TRIES:
                continue  # `prune` has just removed the folder.
            raise
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            if tries < TRIES:
                time.sleep(PAUSE)
                continue
            raise RefusedError(
                f"{what}: {owner} is at it now",
                hint="wait until it has ended, or stop it; what it has fetched stays, and the next run goes on",
            ) from None
        # `prune` may have removed the file between our two calls; what is held must be what others will open.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        os.close(handle)
    raise AssertionError("a count never ends")
