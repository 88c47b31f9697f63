"""Files that are there whole or not at all, whatever is killed or full meanwhile."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file under another name beside it, bring it to the disk, and only then give it its own.

    One that is so already is left alone; folders are made. OSError names the file. The other name is the same each
    time, so that what a killed process left goes when the file is written again; two that write take turns.
    """
    if not path.is_symlink() and path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _turn(path.parent):
        _put(path, data)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a network's file system may have no locks on folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _put(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + PARTIAL)
    try:
        _write(partial, data)
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        # An error while writing names no file.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write(partial: Path, data: bytes) -> None:
    # Whoever prepared the folder (a disk that was carried) may have put a link there: it goes, nobody follows it.
    partial.unlink(missing_ok=True)
    with partial.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
