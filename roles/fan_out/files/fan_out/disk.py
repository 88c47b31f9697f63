# SPDX-License-Identifier: Apache-2.0
"""Files on this host's disk: opened inside the folder only, grown under another name, named when they are right."""

import errno
import json
import os
import stat

from .order import PARTIAL, Refused

COPY = 1024 * 1024  # bytes


class Place:
    """One file: what is there of it, and where it grows. Methods may raise OSError."""

    def __init__(self, folder, entry):
        """`entry` is the file's part of the order."""
        self.entry, self.size = entry, entry["size"]
        self.path = folder / entry["path"]
        self.growing = self.path.with_name(self.path.name + PARTIAL)
        self.whole = None  # descriptor of a file that has its name already
        self.partial = None  # descriptor of the one that grows
        self.left = 0  # spans that are not yet right
        self._folder = folder

    def open(self, source):
        """Look for the file under its name, else for what an earlier run has left."""
        self.whole = self._open(self.path, os.O_RDONLY)
        if self.whole is not None and os.fstat(self.whole).st_size != self.size:
            os.close(self.whole)
            self.whole = None
        if source and self.whole is None:
            raise Refused(f"{self.path} is not there with {self.size} bytes: send it anew")
        if self.whole is None:
            self.partial = self._open(self.growing, os.O_RDWR)

    def grow(self):
        """Return the descriptor of the file that grows; it is made, and as long as it will be."""
        if self.partial is None:
            self.partial = self._open(self.growing, os.O_RDWR | os.O_CREAT)
        if os.fstat(self.partial).st_size != self.size:
            os.ftruncate(self.partial, self.size)
        return self.partial

    @property
    def descriptor(self):
        """Return where its bytes are read."""
        return self.whole if self.partial is None else self.partial

    def has_bytes(self, offset, size):
        """Tell whether anything was ever written to a part of the file that grows."""
        if self.partial is None or os.fstat(self.partial).st_size <= offset:
            return False
        try:
            return os.lseek(self.partial, offset, os.SEEK_DATA) < offset + size
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise

    def allocated(self):
        """Return the bytes of the disk that what is there has taken."""
        return 0 if self.descriptor is None else os.fstat(self.descriptor).st_blocks * 512

    def copy_from_whole(self):
        """Take over a file of which parts are right; where a span is not, most of its pieces may be."""
        target, offset = self.grow(), 0
        while offset < self.size:
            data = os.pread(self.whole, COPY, offset)
            if not data:
                raise OSError(errno.EIO, "became shorter", str(self.path))
            write(target, data, offset)
            offset += len(data)

    def finish(self):
        """Bring it to the disk, date it and give it its name."""
        if self.whole is not None and self.partial is None:
            return
        handle = self.grow()
        os.fchmod(handle, 0o644)
        date = self.entry.get("mtime_ns")
        if date is not None:
            os.utime(str(self.growing), ns=(date, date))
        os.fsync(handle)
        self.growing.replace(self.path)
        parent = os.open(str(self.path.parent), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _open(self, path, flags):
        try:
            # Without O_NONBLOCK a FIFO of that name would be waited on for ever.
            handle = os.open(str(path), flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Refused(f"{path} is a link: remove it, nothing is written through links") from None
            if error.errno in (errno.EISDIR, errno.ENXIO):  # a folder; a socket, or a device that is not there
                raise Refused(f"{path} is no plain file: remove it") from None
            raise
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise Refused(f"{path} is no plain file: remove it")
        return handle

    def make_parents(self):
        """Make its folders one by one; one that is a link may lead anywhere."""
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        for part in self.path.relative_to(folder).parts[:-1]:
            folder = folder / part
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise Refused(f"{folder} is a link: remove it, nothing is written through links")


def link_known(folder, entries):
    """Link what another revision on this host has already, as the stamps beside the folders say; it is read anew."""
    known = {}
    for stamp in sorted(folder.parent.glob("*.json")):
        other = stamp.with_suffix("")
        try:
            files = json.loads(stamp.read_text(encoding="utf-8"))["files"].items() if other != folder else ()
            known.update({sha256: (other / path, size, date) for path, (size, date, sha256) in files})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    for entry in entries:
        found, target = known.get(entry["sha256"]), folder / entry["path"]
        if found is None or os.path.lexists(str(target)):
            continue
        path, size, date = found
        try:
            state = os.lstat(str(path))
            if stat.S_ISREG(state.st_mode) and (state.st_size, state.st_mtime_ns) == (size, date):
                os.link(str(path), str(target))
        except OSError:
            continue


def write(handle, data, offset):
    """Write all of it at its place."""
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count


def check_room(folder, places):
    """Refuse before anything is sent where the disk has no room for what is not there yet."""
    state = os.statvfs(str(folder))
    need = sum(max(0, place.size - place.allocated()) for place in places)
    free = state.f_bavail * state.f_frsize
    if need > free:
        raise Refused(
            f"not enough disk in {folder}: {need / 2**20:.1f} MiB are still to come, {free / 2**20:.1f} MiB are free; "
            "make room there"
        )
