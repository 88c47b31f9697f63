# SPDX-License-Identifier: Apache-2.0
"""What a run is asked to bring: hosts in their order, files, and the spans that they are checked by."""

import hashlib
import json
import re
import unicodedata
from pathlib import Path

SCHEMA = 1
PARTIAL = ".partial"  # what a file is called, behind its name, while it grows
SMALLEST_PIECE, LARGEST_PIECE = 4 * 1024, 16 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Of these depends what is on the wire; hosts that do not agree on them are of two runs.
_COMMON = ("schema", "run", "files", "chunk_size", "piece")


class Refused(Exception):  # noqa: N818  it is shown to people, "error" adds nothing
    """What is wrong, and what to do, for a person."""


class Span:
    """A part of a file that the manifest has a sha256 of: a chunk, or the whole file where it has none of chunks."""

    __slots__ = ("file", "number", "offset", "sha256", "size")

    def __init__(self, number, file, offset, size, sha256):
        """`file` is the file's place in the order's list; offset and size in bytes."""
        self.number, self.file, self.offset, self.size, self.sha256 = number, file, offset, size, sha256


class Order:
    """One host's part in a run. `rank` 0 is the host that has everything; hosts pull from lower ranks only."""

    def __init__(self, raw):
        """Take the order's JSON as a value; raises Refused."""
        try:
            self._read(raw)
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"the order is not whole: {error!r}") from None
        self.spans = list(_spans(self.files, self.chunk_size))
        self.total = sum(file["size"] for file in self.files)
        common = json.dumps({key: raw.get(key) for key in _COMMON}, sort_keys=True)
        self.digest = hashlib.sha256(common.encode()).digest()

    def _read(self, raw):
        if raw["schema"] != SCHEMA:
            raise Refused("the order has schema {}, this program knows {}".format(raw["schema"], SCHEMA))
        self.run, self.rank, self.port = str(raw["run"]), int(raw["rank"]), int(raw["port"])
        self.hosts = [(str(host["name"]), str(host["address"])) for host in raw["hosts"]]
        self.folder = Path(raw["folder"])
        self.piece, self.chunk_size = int(raw["piece"]), int(raw["chunk_size"])
        # Bytes a second that a host sends at most; None is as fast as it goes.
        self.bandwidth = raw.get("bandwidth") or None
        # Seconds: until a silent peer is dead; that the host before is waited for; that nobody answers; after the end.
        self.dead, self.patience = float(raw.get("dead", 5)), float(raw.get("patience", 20))
        self.give_up, self.linger = float(raw.get("give_up", 120)), float(raw.get("linger", 30))
        self.files = raw["files"]
        if not 0 <= self.rank < len(self.hosts):
            raise ValueError(f"rank {self.rank} of {len(self.hosts)} hosts")
        if not SMALLEST_PIECE <= self.piece <= LARGEST_PIECE or self.chunk_size <= 0:
            raise ValueError(f"pieces of {self.piece} bytes, chunks of {self.chunk_size}")
        for file in self.files:
            _check_file(file, self.chunk_size)
        _check_names([file["path"] for file in self.files])

    @property
    def name(self):
        """Return this host's name."""
        return self.hosts[self.rank][0]

    @property
    def address(self):
        """Return this host's address in the cluster."""
        return self.hosts[self.rank][1]

    def pieces(self, span):
        """Return how many pieces a span has."""
        return -(-span.size // self.piece)

    def piece_size(self, span, piece):
        """Return the bytes of a piece; the last one of a span may be shorter."""
        return min(self.piece, span.size - piece * self.piece)


def _check_file(file, chunk_size):
    if not isinstance(file["size"], int) or file["size"] < 0:
        raise ValueError("{}: size {!r}".format(file["path"], file["size"]))
    chunks = file.get("chunks")
    wanted = -(-file["size"] // chunk_size)
    if chunks and len(chunks) != wanted:
        raise ValueError("{}: {} chunks instead of {}".format(file["path"], len(chunks), wanted))
    for digest in [file["sha256"], *(chunks or [])]:
        if not _SHA256.fullmatch(digest):
            raise ValueError("{}: sha256 {!r}".format(file["path"], digest))


def _check_names(names):
    """Refuse what would be written outside of the folder, or over another file."""
    for name in names:
        why = _name_problem(name)
        if why:
            raise Refused(f"the order names the file {name!r}, which {why}; nothing was written")
    if len(set(names)) < len(names):
        raise Refused("the order names a file twice; nothing was written")
    folders = {parent.as_posix() for name in names for parent in Path(name).parents}
    known = set(names)
    both = sorted(folders & known)
    if both:
        raise Refused(f"the order names {both[0]!r} as a file and as a folder; nothing was written")
    for name in names:
        if name + PARTIAL in folders or name + PARTIAL in known:
            raise Refused(f"the order names {name + PARTIAL!r}, under which {name!r} grows; nothing was written")


def _name_problem(name):
    if not isinstance(name, str) or not name:
        return "is no name"
    if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
        return "leaves the folder, or names it twice"
    if "\\" in name or any(unicodedata.category(letter).startswith("C") for letter in name):
        return "has control characters"
    if any(len(part.encode("utf-8")) > 240 for part in name.split("/")):
        return "has a name that is too long"
    return None


def _spans(files, chunk_size):
    number = 0
    for place, file in enumerate(files):
        digests = file.get("chunks") or ([file["sha256"]] if file["size"] else [])
        size = chunk_size if file.get("chunks") else file["size"]
        for index, digest in enumerate(digests):
            offset = index * size
            yield Span(number, place, offset, min(size, file["size"] - offset), digest)
            number += 1
