"""One pull of the same weights at a time. The kernel holds the lock, and lets go of it when its owner dies."""

import fcntl
import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onprem_llm.errors import RefusedError


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock `path`; RefusedError says who has it. A file that a dead owner left behind holds nobody up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _open(path, what)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} of {_person()}@{socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Tell whether somebody pulls there now."""
    if not path.exists():
        return False
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _open(path: Path, what: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            raise RefusedError(
                f"{what}: {owner} is at it now",
                hint="wait until it has ended, or stop it; what it has fetched stays, and the next run goes on",
            ) from None
        # `prune` may have removed the file between our two calls; what is held must be what others will open.
        if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
            return handle
        os.close(handle)


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
