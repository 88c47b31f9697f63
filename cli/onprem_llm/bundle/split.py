"""Cut a blob that is larger than a volume into numbered parts."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from onprem_llm.bundle.files import Moved, copy_stream, hash_stream
from onprem_llm.bundle.manifest import BLOBS
from onprem_llm.bundle.place import is_there
from onprem_llm.bundle.volumes import Piece
from onprem_llm.errors import OnpremError
from onprem_llm.whole_files import PARTIAL


class _Both:
    """A reader that adds what is read to the whole's sum."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.whole = stream, hashlib.sha256()

    def readinto(self, buffer: memoryview) -> int:
        count: int = self.stream.readinto(buffer)  # type: ignore[attr-defined]
        self.whole.update(buffer[:count])
        return count


def split(source: Path, sha256: str, pieces: Sequence[Piece], root: Path, moved: Moved) -> dict[int, str]:
    """Write the parts of a blob to their volumes below `root`; return their sums by number.

    A part that an earlier run wrote is only read from the source again: its sum proves it.
    """
    journal = root / f".parts-{sha256}.jsonl"
    known = _written(journal)
    sums: dict[int, str] = {}
    with source.open("rb", buffering=0) as stream, journal.open("a", encoding="utf-8") as log:
        both = _Both(stream)
        for piece in sorted(pieces, key=lambda one: one.number or 0):
            number, place = piece.number or 0, root / f"vol-{piece.volume + 1:03}" / BLOBS
            found = known.get(number, "")
            if found and is_there(place / found, piece.size):
                sums[number], size = hash_stream(both, moved, piece.size)  # type: ignore[arg-type]
                changed = sums[number] != found
            else:
                sums[number], size = _write(both, place, piece.size, moved)
                changed = False
                log.write(json.dumps({"number": number, "sha256": sums[number]}) + "\n")
                log.flush()
            if changed or size != piece.size:
                raise _changed(source, journal, f"part {number} is another one than before")
    if both.whole.hexdigest() != sha256:
        raise _changed(source, journal, f"found sha256 {both.whole.hexdigest()}, expected {sha256}")
    return sums


def _write(stream: _Both, place: Path, size: int, moved: Moved) -> tuple[str, int]:
    partial = place / f"{os.getpid()}-{id(stream)}{PARTIAL}"
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    with partial.open("xb", buffering=0) as out:
        found = copy_stream(stream, out, moved, size)  # type: ignore[arg-type]
        os.fsync(out.fileno())
    partial.replace(place / found[0])
    return found


def _written(journal: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
            # A kill may have cut the last line.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                value = json.loads(line)
                found[int(value["number"])] = str(value["sha256"])
    return found


def _changed(source: Path, journal: Path, why: str) -> OnpremError:
    # The next run must not take what was written for what it should be.
    journal.unlink(missing_ok=True)
    return OnpremError(
        f"{source}: {why}",
        hint="it has changed since it was fetched: remove it, fetch it again (onprem-llm lock, onprem-llm weights pull "
        "--verify), and run the same command again",
    )
