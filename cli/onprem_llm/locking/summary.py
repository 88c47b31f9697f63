"""What a lock holds, as a person and a script read it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from onprem_llm.locking.build import Built
from onprem_llm.output import human_bytes
from onprem_llm.spec.lock import Lock

COLUMNS = ("what", "name", "is", "size")


def rows(lock: Lock) -> list[tuple[object, ...]]:
    """Return a row a part."""
    return [(kind, name, what, human_bytes(size)) for kind, name, what, size in _parts(lock)]


def document(built: Built, out: Path) -> dict[str, object]:
    """Return the same as JSON, with the lock's own hash."""
    lock = built.lock
    parts = [{"what": kind, "name": name, "is": what, "bytes": size} for kind, name, what, size in _parts(lock)]
    sha256 = hashlib.sha256(lock.data).hexdigest()
    return {
        "lock": str(out), "lock_sha256": sha256, "platform": lock.platform, "expires": lock.expires, "parts": parts,
        "notes": list(built.notes),
    }  # fmt: skip


def _parts(lock: Lock) -> Iterable[tuple[str, str, str, int]]:
    for image in lock.images:
        yield "image", image.ref, image.digest[:19], image.size
    for weights in lock.weights:
        what = (weights.commit or weights.name.rpartition("-")[2])[:12]
        yield "weights", weights.id, what, sum(one.size for one in weights.files)
    for release in lock.packages:
        name = f"{release.os} {release.release}"
        yield "packages", name, f"{len(release.files)} files", sum(one.size for one in release.files)
    for wheels in lock.wheels:
        yield "wheels", f"Python {wheels.python}", f"{len(wheels.files)} files", sum(one.size for one in wheels.files)
