"""An image as a `docker save` archive, made of blobs: for the one image that cannot come from the registry, its own."""

import io
import json
import tarfile
from pathlib import Path

from onprem_llm.bundle.images import read_image
from onprem_llm.errors import OnpremError
from onprem_llm.image_archives import read_archive
from onprem_llm.whole_files import PARTIAL


def write_archive(ref: str, digest: str, blobs: Path, target: Path) -> bool:
    """Write the archive; False where it holds this image already. The same image gives the same bytes."""
    manifest = read_image(ref, digest, blobs / digest.removeprefix("sha256:")).manifest
    config = manifest.config.sha256
    if _holds(target, ref, f"sha256:{config}"):
        return False
    layers = [blob.sha256 for blob in manifest.layers]
    listing = [{"Config": f"{config}.json", "RepoTags": [ref], "Layers": [f"{layer}.tar" for layer in layers]}]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, f"{config}.json", blobs / config)
        # An image may have a layer twice; docker reads it by its name.
        for layer in dict.fromkeys(layers):
            _add(tar, f"{layer}.tar", blobs / layer)
        data = json.dumps(listing, sort_keys=True).encode()
        tar.addfile(_entry("manifest.json", len(data)), io.BytesIO(data))
    partial.replace(target)
    return True


def _holds(target: Path, ref: str, image_id: str) -> bool:
    if not target.is_file():
        return False
    try:
        return [(one.ref, one.id) for one in read_archive(target)] == [(ref, image_id)]
    except OnpremError:
        return False


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as stream:
        tar.addfile(_entry(name, path.stat().st_size), stream)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
