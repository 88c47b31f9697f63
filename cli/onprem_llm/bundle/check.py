"""`bundle verify`: every byte of a bundle, or of the volumes that are here, against its signed manifest."""

import functools
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from onprem_llm.bundle.files import Damage, Moved, hash_stream, open_plain
from onprem_llm.bundle.layout import extra_names, names_in, volume_bytes
from onprem_llm.bundle.manifest import BLOBS, VOLUME, Manifest
from onprem_llm.bundle.opening import Opened
from onprem_llm.errors import InvalidError
from onprem_llm.output import Progress, human_bytes
from onprem_llm.weights.jobs import Meter, run_all


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found. `extra` files are nobody's: they are never read."""

    files: int
    bytes: int
    damages: tuple[Damage, ...]
    extra: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _File:
    place: Path
    path: str
    label: str
    sha256: str
    size: int


def check(opened: Opened, progress: Progress) -> Checked:
    """Read everything, on all cores, the largest files first."""
    files = sorted(_files(opened), key=lambda one: (-one.size, one.path))
    total = sum(file.size for file in files)
    progress.step(f"Verify {human_bytes(total)}", [])
    meter, damages, adding = Meter(progress, "verified", total), [], Lock()

    def read(file: _File) -> None:
        damage = _damage(file, meter.moved)
        if damage:
            with adding:
                damages.append(damage)

    run_all([functools.partial(read, file) for file in files], os.cpu_count() or 1, Event())
    extra = (
        []
        if opened.loaded
        else [
            _shown(str(place / name))
            for volume, place in opened.folders.items()
            for name in extra_names(place, set(names_in(opened.manifest, volume)))
        ]
    )
    return Checked(len(files), total, tuple(sorted(damages, key=lambda one: one.name)), tuple(extra))


def _shown(name: str) -> str:
    """Return the name of a file as a terminal takes it, and as JSON does: who wrote the medium chose it."""
    return name if name.isprintable() else repr(name)


def _files(opened: Opened) -> Iterator[_File]:
    labels = labels_of(opened.manifest)
    if opened.loaded:
        for blob in opened.manifest.blobs:
            yield _File(opened.folders[None], f"{BLOBS}/{blob.sha256}", blob.label, blob.sha256, blob.size)
        return
    root = {file.name: file.sha256 for file in opened.manifest.files}
    for volume, place in opened.folders.items():
        for path, size in names_in(opened.manifest, volume).items():
            if path == VOLUME:
                sha256 = hashlib.sha256(volume_bytes(volume or "")).hexdigest()
            else:
                sha256 = root.get(path) or path.removeprefix(f"{BLOBS}/")
            yield _File(place, path, labels.get(sha256, path), sha256, size)


def labels_of(manifest: Manifest) -> dict[str, str]:
    """Return what blobs and parts are called."""
    labels = {
        part.sha256: f"{blob.label}, part {number} of {len(blob.parts)}"
        for blob in manifest.blobs
        for number, part in enumerate(blob.parts, 1)
    }
    return labels | {blob.sha256: blob.label for blob in manifest.blobs}


def _damage(file: _File, moved: Moved) -> Damage | None:
    at = str(file.place / file.path)
    try:
        with open_plain(file.place, file.path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != file.size:
                return Damage(file.label, at, f"{size} bytes", f"{file.size} bytes")
            found, size = hash_stream(stream, moved)
    except FileNotFoundError:
        return Damage(file.label, at, "nothing", f"{file.size} bytes")
    except InvalidError:
        return Damage(file.label, at, "a link or no plain file", "a file")
    except OSError as error:
        return Damage(file.label, at, error.strerror or str(error), f"{file.size} readable bytes")
    if (found, size) == (file.sha256, file.size):
        return None
    return Damage(file.label, at, f"sha256 {found}", file.sha256)
