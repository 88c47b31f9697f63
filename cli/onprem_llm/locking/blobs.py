"""The cache of blobs, CACHE/blobs/sha256/<hex>: what has a name here was hashed when it came."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from onprem_llm.caches import cache_folder
from onprem_llm.errors import OnpremError

READ = 1024 * 1024
MAKE_ROOM = "make room there, or name another folder: ONPREM_LLM_CACHE"
# Nothing is on its way for so long.
ABANDONED_S = 2 * 86400


@dataclass(frozen=True, slots=True)
class Blobs:
    """The blobs of this machine."""

    root: Path = field(default_factory=lambda: cache_folder() / "blobs" / "sha256")

    @property
    def folder(self) -> Path:
        """Return a folder of the same file system for what is on its way; what a killed run left there goes."""
        self.root.mkdir(parents=True, exist_ok=True)
        for left in (*self.root.parent.glob(".*-*"), *self.root.glob(".arriving-*")):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        return self.root.parent

    def path(self, sha256: str) -> Path:
        """Return where a blob is, or would be."""
        return self.root / sha256.removeprefix("sha256:")

    def has(self, sha256: str, size: int | None = None) -> bool:
        """Tell whether a blob is here, whole."""
        path = self.path(sha256)
        return path.is_file() and size in {None, path.stat().st_size}

    def put(self, data: bytes) -> str:
        """Keep bytes, and return their sha256."""
        return self.receive([data])[0]

    def receive(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Keep what comes in pieces, and return its sha256 and size."""
        digest, size = hashlib.sha256(), 0
        with self._arriving() as stream:
            for piece in pieces:
                stream.write(piece)
                digest.update(piece)
                size += len(piece)
            self._name(stream, digest.hexdigest())
        return digest.hexdigest(), size

    def take(self, file: Path) -> tuple[str, int]:
        """Move a file of the same file system in, and return its sha256 and size; elsewhere it is copied."""
        sha256, size = sums(file)
        target = self.path(sha256)
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            file.replace(target)
        except OSError:
            return self.receive(pieces_of(file))
        return sha256, size

    @contextmanager
    def _arriving(self) -> Iterator[IO[bytes]]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root, prefix=".arriving-", delete=False) as stream:
                try:
                    yield stream
                finally:
                    Path(stream.name).unlink(missing_ok=True)
        except OSError as error:
            # An error while writing names no file.
            raise OnpremError(f"{self.root}: cannot be written: {error.strerror}", hint=MAKE_ROOM) from None

    def _name(self, stream: IO[bytes], sha256: str) -> None:
        stream.flush()
        os.fsync(stream.fileno())
        Path(stream.name).chmod(0o644)
        Path(stream.name).replace(self.path(sha256))


def hint_for(said: str, otherwise: str) -> str:
    """Return what to do about what a tool said when it failed: nothing else helps where there is no room."""
    return MAKE_ROOM if "no space left" in said.lower() else otherwise


def pieces_of(file: Path) -> Iterator[bytes]:
    """Read a file piece by piece."""
    with file.open("rb") as stream:
        while piece := stream.read(READ):
            yield piece


def sums(file: Path) -> tuple[str, int]:
    """Return a file's sha256 and size."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()
