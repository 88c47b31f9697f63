"""Put parts of a blob together as their volumes come, in any order, without a copy of them in between."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.bundle.files import Moved, copy_stream, hash_stream, open_plain
from onprem_llm.bundle.manifest import BLOBS, Blob
from onprem_llm.bundle.place import is_there
from onprem_llm.errors import OnpremError

ASSEMBLING = ".assembling"
JOURNAL = ".parts.jsonl"


@dataclass(frozen=True, slots=True)
class Assembly:
    """A blob whose parts come one by one: bytes in `….assembling`, and a line a part that was verified."""

    store: Path
    blob: Blob

    @property
    def target(self) -> Path:
        """What the blob is called once it is whole."""
        return self.store / self.blob.sha256

    @property
    def _file(self) -> Path:
        return self.store / f"{self.blob.sha256}{ASSEMBLING}"

    @property
    def _journal(self) -> Path:
        return self.store / f"{self.blob.sha256}{JOURNAL}"

    def present(self) -> set[int]:
        """Return the numbers of the parts that have come (from 0)."""
        if is_there(self.target, self.blob.size):
            return set(range(len(self.blob.parts)))
        found: set[int] = set()
        if not self._file.is_file():
            return found
        with contextlib.suppress(FileNotFoundError):
            for line in self._journal.read_text(encoding="utf-8", errors="replace").splitlines():
                # A kill may have cut the last line.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    value = json.loads(line)
                    if value["sha256"] == self.blob.parts[value["number"]].sha256:
                        found.add(int(value["number"]))
        return found & set(range(len(self.blob.parts)))

    def add(self, number: int, place: Path, moved: Moved) -> bool:
        """Write a part from a volume to where it belongs; False where it is there already."""
        part = self.blob.parts[number]
        if number in self.present():
            moved(part.size)
            return False
        offset = sum(one.size for one in self.blob.parts[:number])
        with open_plain(place, f"{BLOBS}/{part.sha256}") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != part.size:
                raise self._damaged(place, number, f"{size} bytes")
            handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            with os.fdopen(handle, "r+b", buffering=0) as out:
                out.seek(offset)
                # No byte more than its own: what comes after it may be there already.
                found = copy_stream(stream, out, moved, part.size)
                os.fsync(out.fileno())
        if found != (part.sha256, part.size):
            raise self._damaged(place, number, f"{found[1]} bytes with sha256 {found[0]}")
        with self._journal.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"number": number, "sha256": part.sha256}) + "\n")
            log.flush()
            os.fsync(log.fileno())
        return True

    def _damaged(self, place: Path, number: int, found: str) -> OnpremError:
        part = self.blob.parts[number]
        return OnpremError(
            f"{place / BLOBS / part.sha256} ({self.blob.label}, part {number + 1}): found {found}, expected "
            f"{part.size} bytes with its own name as sha256",
            hint="copy this volume again from where it was made, and load it again: what has come stays",
        )

    def finish(self, moved: Moved) -> bool:
        """Give the blob its name once all parts are there and their whole has its sum; False where some are not."""
        if is_there(self.target, self.blob.size):
            return True
        if len(self.present()) < len(self.blob.parts):
            return False
        with self._file.open("rb", buffering=0) as stream:
            found = hash_stream(stream, moved)
        if found != (self.blob.sha256, self.blob.size):
            self._journal.unlink()
            raise OnpremError(
                f"{self.blob.label}: its parts together have sha256 {found[0]}, expected {self.blob.sha256}",
                hint="the disk changed them, or the bundle was made wrong: load all volumes again",
            )
        self._file.replace(self.target)
        self._journal.unlink(missing_ok=True)
        return True
