"""`bundle create`: from a lock to a folder. Blobs first, the manifest last: without it the folder is no bundle."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.bundle.describe import Described
from onprem_llm.bundle.files import disk_trouble
from onprem_llm.bundle.have import Have
from onprem_llm.bundle.layout import BEGUN, folder_of, is_whole, volume_folders, volume_names
from onprem_llm.bundle.manifest import BLOBS, MANIFEST, SIGNATURE, Manifest, read_manifest
from onprem_llm.bundle.signing import BUNDLE, key_of, sign
from onprem_llm.bundle.sources import Sources
from onprem_llm.bundle.wanted import wanted_of
from onprem_llm.bundle.writing import Writer
from onprem_llm.errors import RefusedError
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.ray_image import check as check_ray
from onprem_llm.output import Progress
from onprem_llm.probe_values import mapping
from onprem_llm.spec.lock import Lock
from onprem_llm.weights.lock import held
from onprem_llm.whole_files import write_whole


@dataclass(frozen=True, slots=True)
class Asked:
    """What the person asked for: a lock and its bytes, the folder, what the site has, bytes of a volume."""

    lock: Lock
    lock_bytes: bytes
    lock_sha256: str
    folder: Path
    have: Have | None = None
    volume_size: int | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """A whole bundle, and how many bytes were written or linked for it now."""

    manifest: Manifest
    placed: int


def create(asked: Asked, sources: Callable[[], Sources], progress: Progress) -> Created:
    """Write the bundle, or what is missing of it; a whole one is left alone, and little of it is read."""
    with _alone(asked.folder), disk_trouble(asked.folder, "writing the bundle"):
        known = _known(asked)
        if known is not None and is_whole(asked.folder, known):
            (asked.folder / BEGUN).unlink(missing_ok=True)
            return Created(known, 0)
        _begin(asked, known)
        found = sources()
        wanted = wanted_of(asked.lock, asked.lock_bytes, found, progress)
        _check_ray(asked.lock, Blobs(found.cache / BLOBS), progress)
        writer = Writer(asked.folder, Described(wanted, asked.have, asked.volume_size), progress)
        return Created(writer.write(), writer.placed)


def sign_bundle(folder: Path, manifest: Manifest, key: Path) -> None:
    """Sign the manifest, in each volume."""
    signature = sign(manifest.data(), key, BUNDLE)
    for name in volume_names(manifest):
        write_whole(folder_of(folder, name) / SIGNATURE, signature)


def signed_by(folder: Path, manifest: Manifest) -> str | None:
    """Return the fingerprint of the key that signed every volume; None where one is unsigned, or by another key."""
    data = manifest.data()
    keys = {key_of(data, folder_of(folder, name) / SIGNATURE, BUNDLE) for name in volume_names(manifest)}
    return keys.pop() if len(keys) == 1 else None


def _check_ray(lock: Lock, blobs: Blobs, progress: Progress) -> None:
    """Raise InvalidError where no cluster can run from the image for it: a registry's layers are here only now."""
    ref = mapping(lock.site.get("ray")).get("image")
    image = lock.image(ref) if isinstance(ref, str) else None
    if image is not None:
        progress.step(f"Look for Ray in {image.ref}", [])
        check_ray(image, blobs)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder: what is in it travels.
    lock = folder.with_name(f".{folder.name}.lock")
    with held(lock, str(folder)):
        yield
        # Whoever opened it meanwhile sees that the name is gone, and makes another.
        lock.unlink(missing_ok=True)


def _known(asked: Asked) -> Manifest | None:
    """Return the manifest that is there for what is asked; RefusedError where the folder is something else."""
    base = asked.have.base if asked.have else None
    for place in (asked.folder, *volume_folders(asked.folder)):
        path = place / MANIFEST
        if not path.is_file():
            continue
        found = read_manifest(path.read_bytes(), str(path))
        if (found.lock_sha256, found.base, found.volume_size) == (asked.lock_sha256, base, asked.volume_size):
            return found
        raise RefusedError(
            f"{asked.folder}: holds another bundle: lock {found.lock_sha256[:12]}, base {(found.base or 'none')[:12]}, "
            f"volume size {found.volume_size or 'none'}",
            hint="name another folder with -o, or remove this one",
        )
    return None


def _begin(asked: Asked, known: Manifest | None) -> None:
    folder, mark = asked.folder, asked.folder / BEGUN
    mine = f"{asked.lock_sha256} {asked.have.base if asked.have else None} {asked.volume_size}\n"
    there = list(folder.iterdir()) if folder.exists() else []
    # A medium's own folders are no reason not to write to it.
    strange = sorted(path.name for path in there if path.name not in {"lost+found", "System Volume Information"})
    if known is None and mark.exists() and mark.read_text(encoding="utf-8") not in {mine, ""}:
        raise RefusedError(
            f"{folder}: holds the beginning of another bundle", hint="name another folder with -o, or remove this one"
        )
    if known is None and strange and not mark.exists():
        raise RefusedError(f"{folder}: is not empty ({strange[0]}), and no bundle", hint="name another folder with -o")
    folder.mkdir(exist_ok=True)
    mark.write_text(mine, encoding="utf-8")
