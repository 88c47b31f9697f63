"""Which weights a folder holds: a manifest of sizes and sha256 sums, and an id made from them."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file: its path inside the folder, its bytes, sha256 and time of change in nanoseconds."""

    path: str
    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class WeightsManifest:
    """All files of a folder of weights. The id is the folder's name and 12 hex digits over paths and sums."""

    id: str
    name: str
    files: tuple[WeightsFile, ...]
    bytes: int


def scan_folder(path: Path, cache: Path) -> WeightsManifest:
    """Hash the files of `path` (hidden ones left out); sums are kept in `cache`, so that the next scan only looks.

    Raises InvalidError for a link that leads nowhere and for a file that cannot be read.
    """
    root = path.resolve()
    known = _read_cache(cache)
    found = sorted(weights_files(root), key=lambda file: file.relative_to(root).as_posix())
    try:
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            files = tuple(pool.map(lambda file: _entry(root, file, known), found))
    except OSError as error:
        raise InvalidError(f"{error.filename}: cannot be read: {error.strerror}", hint="mend its permissions") from None
    _write_cache(cache, known)
    name, identity = identity_of(root.name, {file.path: file.sha256 for file in files})
    return WeightsManifest(identity, name, files, sum(file.size for file in files))


def identity_of(folder: str, sums: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and the id of weights in a folder of that name, from the sha256 of each of its files."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-.") or "weights"
    lines = "".join(f"{path}\0{sha256}\n" for path, sha256 in sorted(sums.items()))
    return name, f"{name}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}"


def remember_sums(cache: Path, root: Path, sums: Mapping[str, str]) -> None:
    """Keep sums that somebody else has just made of the files of `root`, so that the next scan only looks."""
    known = _read_cache(cache)
    known.update({_key(root / path): sha256 for path, sha256 in sums.items()})
    _write_cache(cache, known)


def known_places(cache: Path) -> dict[str, Path]:
    """Return files by their sha256, as scans of folders on this machine found them, that have not changed since."""
    found = {}
    for key, sha256 in _read_cache(cache).items():
        path = Path(key.rsplit(":", 3)[0])
        with contextlib.suppress(OSError):
            if _key(path) == key:
                found[sha256] = path
    return found


def weights_files(root: Path) -> Iterator[Path]:
    """Yield the files below `root`; hidden files and folders are no weights."""
    visited: set[Path] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        # Links to folders are followed, but never in a circle.
        visited.add(Path(folder).resolve())
        shown = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in shown if (Path(folder) / name).resolve() not in visited]
        for name in sorted(names):
            file = Path(folder) / name
            if name.startswith("."):
                continue
            if not file.exists():
                raise InvalidError(f"{file}: a link to {file.readlink()}, which is not there", hint="mend the folder")
            yield file


def _entry(root: Path, file: Path, known: dict[str, str]) -> WeightsFile:
    # A hub's cache holds links to blobs beside the folder; what counts is the file that they lead to.
    state, key = file.stat(), _key(file)
    if key not in known:
        known[key] = _sha256(file)
    return WeightsFile(file.relative_to(root).as_posix(), state.st_size, known[key], state.st_mtime_ns)


def _key(file: Path) -> str:
    state = file.stat()
    return f"{file.resolve()}:{state.st_size}:{state.st_mtime_ns}:{state.st_ino}"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_cache(cache: Path) -> dict[str, str]:
    try:
        raw = json.loads((cache / "sha256.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in raw.items() if isinstance(value, str)} if isinstance(raw, dict) else {}


def _write_cache(cache: Path, known: dict[str, str]) -> None:
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=cache, prefix="sha256.", delete=False, encoding="utf-8") as stream:
        json.dump(known, stream)
    Path(stream.name).replace(cache / "sha256.json")
