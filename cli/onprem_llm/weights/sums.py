"""All hashes of a file from one reading of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

# A chunk is what is checked, and sent again, on the way to the hosts.
CHUNK = 64 * 1024 * 1024
READ = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sums:
    """Size, sha256, the sha256 of each chunk, and the name that git gives to such a file."""

    size: int
    sha256: str
    chunks: tuple[str, ...]
    git_sha1: str


def sums_of(path: Path, *, git: bool = False) -> Sums:
    """Read a file once; git's sha1 only where it is asked for, since it costs as much again."""
    size = path.stat().st_size
    whole, chunk, chunks, count = hashlib.sha256(), hashlib.sha256(), [], 0
    # Git names a file by this header and its bytes; no safety hangs on it.
    blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while data := stream.read(READ):
            whole.update(data)
            chunk.update(data)
            if git:
                blob.update(data)
            count += len(data)
            if count % CHUNK == 0:
                chunks.append(chunk.hexdigest())
                chunk = hashlib.sha256()
    if count % CHUNK:
        chunks.append(chunk.hexdigest())
    return Sums(count, whole.hexdigest(), tuple(chunks), blob.hexdigest() if git else "")
