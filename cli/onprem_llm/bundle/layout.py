"""Where things are in a bundle: one folder, or volumes, each with its copy of the signed manifest."""

import json
from pathlib import Path

from onprem_llm.bundle.manifest import BLOBS, INDEX, LAYOUT, MANIFEST, SIGNATURE, VOLUME, Manifest
from onprem_llm.bundle.place import is_there

# There while a folder is being written, so that nobody's own folder is taken for one.
BEGUN = ".creating"
# What `prove` leaves beside the manifest: it speaks of the bundle, and is none of it.
PROOF = ("proof.json", "proof.json.sig", "proof.txt")


def volume_bytes(name: str) -> bytes:
    """Return volume.json. It is not signed: one that lies makes blobs look absent, and nothing more."""
    return json.dumps({"volume": name}).encode() + b"\n"


def volume_folders(folder: Path) -> list[Path]:
    """Return the volumes below a folder."""
    return sorted(path for path in folder.glob("vol-*") if path.is_dir() and not path.is_symlink())


def folder_of(folder: Path, volume: str | None) -> Path:
    """Return the folder of a volume, or the bundle's own."""
    return folder / volume if volume else folder


def names_in(manifest: Manifest, volume: str | None) -> dict[str, int]:
    """Return what a folder of the bundle must hold, and the sizes: paths below it."""
    sizes = {blob.sha256: blob.size for blob in manifest.carried}
    sizes.update({part.sha256: part.size for blob in manifest.carried for part in blob.parts})
    root = {file.name: file.size for file in manifest.files}
    if volume is None:
        return root | {f"{BLOBS}/{blob.sha256}": blob.size for blob in manifest.carried}
    found = next(one for one in manifest.volumes if one.name == volume)
    root[VOLUME] = len(volume_bytes(volume))
    return root | {f"{BLOBS}/{sha256}": sizes[sha256] for sha256 in found.contents}


def volume_names(manifest: Manifest) -> list[str | None]:
    """Name the volumes; a bundle in one folder has none, which is `None`."""
    return [volume.name for volume in manifest.volumes] or [None]


def is_whole(folder: Path, manifest: Manifest) -> bool:
    """Look whether every file is there with its size. Reads no content."""
    data = manifest.data()
    for name in volume_names(manifest):
        place = folder_of(folder, name)
        path = place / MANIFEST
        if not is_there(path, len(data)) or path.read_bytes() != data:
            return False
        if not all(is_there(place / inner, size) for inner, size in names_in(manifest, name).items()):
            return False
    return True


def extra_names(place: Path, known: set[str]) -> list[str]:
    """Return files that the manifest does not know: nobody reads them."""
    known = known | {MANIFEST, SIGNATURE, LAYOUT, INDEX, *PROOF}
    found = (path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for name in found if name not in known)
