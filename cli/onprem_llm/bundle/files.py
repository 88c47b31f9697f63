"""Files of a bundle: opened without following links, hashed on the way, put in their place whole or not at all."""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.whole_files import PARTIAL

READ = 4 * 1024 * 1024
# FICLONE of linux/fs.h: the new file shares the old one's bytes until either is written to.
_FICLONE = 0x40049409
# What a file system answers that cannot do it here.
_CANNOT = {
    errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOTTY, errno.EINVAL, errno.EMLINK,
    errno.ENOSYS,
}  # fmt: skip
_FAT_LIMIT = 2**32 - 1
Moved = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Damage:
    """What is not as the manifest says."""

    name: str
    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        """Show it as a line."""
        return f"{self.name} ({self.path}): found {self.found}, expected {self.expected}"


def open_plain(root: Path, name: str) -> BinaryIO:
    """Open ROOT/a/b/c for reading; InvalidError where a part below ROOT is a link, FileNotFoundError as usual."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *folders, last = name.split("/")
        for folder in folders:
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = inner
        # Nonblocking: a pipe with that name must not hold us up.
        opened = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise InvalidError(
                f"{root / name}: a link (or no folder) is in its place, expected files and folders alone",
                hint="copy the bundle again from where it was made",
            ) from None
        raise
    finally:
        os.close(handle)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise InvalidError(f"{root / name}: no plain file", hint="copy the bundle again from where it was made")
    return os.fdopen(opened, "rb", buffering=0)


def read_small(root: Path, name: str, limit: int = 256 * 1024 * 1024) -> bytes:
    """Read a file that is known to be small."""
    with open_plain(root, name) as stream:
        data = b""
        while piece := stream.read(READ):
            data += piece
            if len(data) > limit:
                raise InvalidError(f"{root / name}: larger than such a file ever is", hint="copy the bundle again")
        return data


def hash_stream(stream: BinaryIO, moved: Moved, limit: int | None = None) -> tuple[str, int]:
    """Read to the end (or `limit` bytes) and return sha256 and size. Large reads let other threads run meanwhile."""
    digest, size = hashlib.sha256(), 0
    with memoryview(bytearray(READ)) as buffer:
        while (
            count := stream.readinto(  # type: ignore[attr-defined]
                buffer if limit is None else buffer[: min(READ, limit - size)]
            )
        ):
            digest.update(buffer[:count])
            size += count
            moved(count)
    return digest.hexdigest(), size


def copy_stream(stream: BinaryIO, out: BinaryIO, moved: Moved, limit: int | None = None) -> tuple[str, int]:
    """Write what is read, and return sha256 and size of it."""
    digest, size = hashlib.sha256(), 0
    with memoryview(bytearray(READ)) as buffer:
        while (
            count := stream.readinto(  # type: ignore[attr-defined]
                buffer if limit is None else buffer[: min(READ, limit - size)]
            )
        ):
            digest.update(buffer[:count])
            left = buffer[:count]
            while left:
                left = left[out.write(left) :]
            size += count
            moved(count)
    return digest.hexdigest(), size


def share(stream: BinaryIO, source: Path, target: Path, *, ours_alone: bool = False) -> bool:
    """Give `target` the bytes of `source` without copying: a clone, else a hard link; False where neither is possible.

    `stream` is the open source: what is shared is that file, whatever its name may have become meanwhile. With
    `ours_alone` a link is made only to what nobody else may write to.
    """
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    if clone(stream, target):
        return True
    opened = os.fstat(stream.fileno())
    if (ours_alone and not is_ours(opened)) or not link(source, target):
        return False
    here = target.lstat()
    if (here.st_dev, here.st_ino) == (opened.st_dev, opened.st_ino):
        return True
    target.unlink()
    return False


def is_ours(state: os.stat_result) -> bool:
    """Tell whether a file is ours, and nobody else may write to it: whoever may keeps that power over a link to it."""
    return state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def link(source: Path, target: Path) -> bool:
    """Make a hard link; False where the file system has none, or does not let us."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def clone(stream: BinaryIO, target: Path) -> bool:
    """Make a file of one's own that shares the stream's bytes; False where the file system has none such."""
    with target.open("xb") as out:
        try:
            fcntl.ioctl(out.fileno(), _FICLONE, stream.fileno())
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        else:
            return True
    target.unlink()
    return False


def refuse_large(folder: Path, sizes: Sequence[int], hint: str) -> None:
    """Raise InvalidError where a file is larger than the folder's file system takes, before anything is written."""
    if max(sizes, default=0) <= _FAT_LIMIT:
        return
    probe = folder / f".probe{PARTIAL}"
    try:
        with probe.open("wb") as stream:
            os.ftruncate(stream.fileno(), _FAT_LIMIT + 1)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise InvalidError(
            f"{folder}: this file system takes no files above 4 GiB (FAT), and one of {max(sizes)} bytes is wanted",
            hint=hint,
        ) from None
    finally:
        probe.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """Return what may be written below a folder that may not be there yet."""
    while not folder.exists():
        folder = folder.parent
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


@contextlib.contextmanager
def disk_trouble(where: Path, doing: str) -> Iterator[None]:
    """Turn a full or failing disk into an error that says what to do; what has come stays."""
    try:
        yield
    except OSError as error:
        # One that names its file says enough.
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO} and error.filename:
            raise
        hints = {
            errno.EFBIG: "this file system takes no files of that size: --volume-size 4GB splits them",
            errno.EROFS: "mount it for writing, or name another folder",
            errno.EIO: "the disk fails: name a folder on another one",
        }
        raise OnpremError(
            f"{where}: {error.strerror} while {doing}; {free_bytes(where)} bytes are free",
            hint=hints.get(error.errno or 0, "make room, and run the same command again: it goes on from there"),
        ) from None
