# SPDX-License-Identifier: Apache-2.0
"""What a backup holds and how it is written: one tar.gz, `manifest.json` last, each file's sha256 in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import tarfile
from pathlib import Path, PurePosixPath

VERSION = 1
MANIFEST = "manifest.json"
PARTS = ("book", "secrets", "ui")
BLOCK = 1024 * 1024
# Of the host itself: what bootstrap changed there, which host this is, and the key of its own engines.
OWN = {"book": ("bootstrap.json", "gateway", "second"), "secrets": ("engine.key", "engine.crt"), "ui": ()}
PASSING = re.compile(r"(^|/)(\.new-[^/]*|[^/]*\.partial|\.[^/]*lock)$")
# Of client keys a backup is merged into what the host knows, by role gateway: it knows of revocations since.
KEYS = re.compile(r"^keys/(keys\.json|[a-z]+\.map)$")
GIVEN_KEYS = "keys/given.json"
MARKS = {
    "gateway": "The book of this site, and its gateway.\n",
    "second": "A copy of the book of this site, and another gateway.\n",
}
SQLITE = b"SQLite format 3\x00"


class BackupError(Exception):
    """What keeps a backup from being written or put back; for a person."""


def folders(book, data_root):
    """Return where each part is on a host."""
    return {
        "book": Path(book),
        "secrets": Path(data_root, "secrets"),
        "ui": Path(data_root, "open-webui", "data"),
    }


def own(part, name):
    """Tell whether a file is the host's own, a lock, or just being written: neither saved nor replaced."""
    return name in OWN[part] or PASSING.search(name) is not None


def names_of(part, folder):
    """Return the relative names of the files and links of a part, in order."""
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if (path.is_symlink() or path.is_file()) and not own(part, name):
            found.append(name)
    return found


def is_database(path):
    """Tell whether a file is an SQLite database."""
    with path.open("rb") as handle:
        return handle.read(len(SQLITE)) == SQLITE


def copy_database(path, target):
    """Copy a database that may be in use, as of one moment."""
    source = sqlite3.connect(str(path), timeout=60)
    try:
        copy = sqlite3.connect(str(target))
        try:
            source.backup(copy)
        finally:
            copy.close()
    finally:
        source.close()


class Reader:
    """Reads a file for tarfile and sums what it read."""

    def __init__(self, handle):
        """`handle` is open for reading bytes."""
        self.handle = handle
        self.sum = hashlib.sha256()

    def read(self, size=-1):
        """Return the next bytes."""
        data = self.handle.read(size)
        self.sum.update(data)
        return data


class Writer:
    """An archive that grows, and the manifest of what is in it."""

    def __init__(self, archive, scratch):
        """`scratch` is a path for one file at a time, beside the archive."""
        self.archive, self.scratch, self.files = archive, scratch, {}

    def add(self, part, folder, name):
        """Add one file or link; one that has gone meanwhile is left out."""
        path, member = folder / name, f"{part}/{name}"
        try:
            if path.is_symlink():
                self._add_link(path, member)
            elif is_database(path):
                self._add_database(path, member)
            else:
                self._add_file(path, path.stat(), member)
        except FileNotFoundError:
            return

    def _add_link(self, path, member):
        info = tarfile.TarInfo(member)
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(str(path))
        self.archive.addfile(info)
        self.files[member] = {"link": info.linkname}

    def _add_database(self, path, member):
        about = path.stat()
        try:
            copy_database(path, self.scratch)
            self._add_file(self.scratch, about, member)
        except sqlite3.Error as error:
            raise BackupError(f"{path}: the database cannot be copied: {error}") from error
        finally:
            if self.scratch.exists():
                self.scratch.unlink()

    def _add_file(self, path, about, member):
        with path.open("rb") as handle:
            info = tarfile.TarInfo(member)
            info.size, info.mtime = os.fstat(handle.fileno()).st_size, int(about.st_mtime)
            info.mode, info.uid, info.gid = about.st_mode & 0o7777, about.st_uid, about.st_gid
            reader = Reader(handle)
            self.archive.addfile(info, reader)
        self.files[member] = {"size": info.size, "sha256": reader.sum.hexdigest()}


def side_files(names):
    """Return what belongs to a database in use, and is in its copy already."""
    known = set(names)
    return {n for n in names for end in ("-wal", "-shm", "-journal") if n.endswith(end) and n[: -len(end)] in known}


def check_member(member):
    """Raise BackupError for a name that leaves its part's folder; return (part, relative name)."""
    part, _, name = member.partition("/")
    pure = PurePosixPath(name)
    if part not in PARTS or not name or pure.is_absolute() or ".." in pure.parts or own(part, name):
        raise BackupError(f"{member!r:.120} is nothing that a backup holds")
    return part, name


def check_link(name, target):
    """Raise BackupError for a link that leaves its part's folder."""
    inside = os.path.normpath(str(PurePosixPath(name).parent / target))
    if PurePosixPath(target).is_absolute() or inside.startswith(".."):
        raise BackupError(f"{name!r:.120} is a link to {target!r:.120}, out of its folder")


def manifest_of(archive):
    """Return the manifest of an open archive; BackupError where this is none of ours."""
    try:
        value = json.loads(archive.extractfile(MANIFEST).read().decode("utf-8"))
    except (KeyError, AttributeError, ValueError, OSError, EOFError, tarfile.TarError) as error:
        raise BackupError(f"it has no {MANIFEST} that can be read, so it is no backup, or not a whole one") from error
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise BackupError(f"found backup version {value.get('version')!r:.20}, expected {VERSION}")
    return value


def mark(book, kind):
    """Say in the book what this host is, `gateway`, `second` or nothing; return whether it said something else."""
    before = {name for name in MARKS if (book / name).exists()}
    for name in before - {kind}:
        (book / name).unlink()
    if kind and kind not in before:
        book.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = book / kind
        path.write_text(MARKS[kind], encoding="utf-8")
        path.chmod(0o600)
    return before != ({kind} if kind else set())
