"""Images of an OCI layout as a registry's storage: what docker-registry serves when it is started over the folder.

The layout is that of distribution's filesystem driver, version 2 (its registry/storage/paths.go): a blob lies once,
under its sum; that a repository has it, and what a tag means, are small files that hold a digest.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.bundle.images import AGAIN, INDEX, add_to_index, descriptors
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.image_names import ImageName, image_name
from onprem_llm.locking.manifests import LARGEST, described, parse
from onprem_llm.weights.sums import sums_of
from onprem_llm.whole_files import write_whole

ROOT = "docker/registry/v2"
ReadManifest = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class ImageParts:
    """What one image takes of it."""

    blobs: tuple[str, ...]  # hex sha256: its manifest, configuration, layers
    links: Mapping[str, str]  # path -> the digest in it


@dataclass(frozen=True, slots=True)
class RegistryView:
    """The files of a registry's storage, paths below its folder."""

    blobs: Mapping[str, int]  # hex sha256 -> bytes
    images: Mapping[str, str]  # ref -> digest
    parts: Mapping[str, ImageParts]  # by ref

    @property
    def links(self) -> dict[str, str]:
        """All small files: path -> the digest in it."""
        return {path: digest for part in self.parts.values() for path, digest in part.links.items()}


def blob_path(sha256: str) -> str:
    """Return where a blob lies."""
    return f"{ROOT}/blobs/sha256/{sha256[:2]}/{sha256}/data"


def view_of(index: Mapping[str, object], read: ReadManifest) -> RegistryView:
    """Return what a registry needs for the images of an index; `read` gives a manifest's bytes by hex sha256.

    InvalidError for names that docker would not take, for a ref that means two images, and for what is no image of one
    platform.
    """
    found = descriptors(index)
    blobs: dict[str, int] = {}
    parts: dict[str, ImageParts] = {}
    for ref, descriptor in sorted(found.items()):
        name, blob = image_name(ref), described(descriptor, ref, AGAIN)
        manifest, size = blob.sha256, blob.size
        base = f"{ROOT}/repositories/{name.repository}"
        content = _content(read(manifest), ref, manifest, size)
        links = {f"{base}/_layers/sha256/{sha256}/link": f"sha256:{sha256}" for sha256, _ in content}
        own = ((manifest, size), *content)
        parts[ref] = ImageParts(
            tuple(dict.fromkeys(sha256 for sha256, _ in own)), _manifest_links(base, name, manifest) | links
        )
        for sha256, length in own:
            if blobs.setdefault(sha256, length) != length:
                raise _refused(ref, f"sha256:{sha256} has {length} bytes here and {blobs[sha256]} in another image")
    return RegistryView(blobs, {ref: str(one["digest"]) for ref, one in found.items()}, parts)


def _manifest_links(base: str, name: ImageName, manifest: str) -> dict[str, str]:
    digest = f"sha256:{manifest}"
    links = {f"{base}/_manifests/revisions/sha256/{manifest}/link": digest}
    if name.tag is not None:
        tag = f"{base}/_manifests/tags/{name.tag}"
        links |= {f"{tag}/current/link": digest, f"{tag}/index/sha256/{manifest}/link": digest}
    return links


def _content(data: bytes, ref: str, sha256: str, size: int) -> list[tuple[str, int]]:
    """Return (hex sha256, bytes) of an image's configuration and layers."""
    if len(data) != size:
        raise _refused(ref, f"its manifest sha256:{sha256} has {len(data)} bytes, expected {size}")
    return [(blob.sha256, blob.size) for blob in parse(data, ref, AGAIN).blobs]


def _refused(ref: str, why: str) -> InvalidError:
    return InvalidError(f"image {ref}: {why}", hint=AGAIN)


def write_registry(index: Mapping[str, object], blobs: Path, target: Path) -> int:
    """Make or complete a registry's storage in `target`; return how many bytes were copied (links cost none).

    `blobs` holds every blob under its hex sha256, verified. Images that an earlier call brought stay; a ref that comes
    again means the new image from then on. index.json is written last: it names nothing that is not whole.
    """
    view = view_of(index, lambda sha256: _manifest_bytes(blobs / sha256))
    copied = sum(_place(blobs / sha256, target / blob_path(sha256), size) for sha256, size in view.blobs.items())
    for path, digest in view.links.items():
        write_whole(target / path, digest.encode())
    add_to_index(target / INDEX, index)
    return copied


def _manifest_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST + 1)
    except OSError as error:
        raise InvalidError(f"{path}: a manifest cannot be read: {error.strerror}", hint=AGAIN) from None


def _place(source: Path, target: Path, size: int) -> int:
    """Link or copy a blob, whole or not at all; return the bytes that were copied."""
    try:
        there = source.stat()
    except OSError as error:
        raise InvalidError(f"{source}: a blob of an image cannot be read: {error.strerror}", hint=AGAIN) from None
    if there.st_size != size:
        raise InvalidError(f"{source}: found {there.st_size} bytes, expected {size}", hint=AGAIN)
    if target.is_file() and not target.is_symlink() and target.stat().st_size == size:
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name("data.partial")
    partial.unlink(missing_ok=True)
    try:
        partial.hardlink_to(source)
        copied = 0
    except OSError:
        copied = _copy(source, partial, size)
    partial.replace(target)
    return copied


def _copy(source: Path, partial: Path, size: int) -> int:
    with source.open("rb") as stream, partial.open("xb") as out:
        while os.sendfile(out.fileno(), stream.fileno(), None, 1 << 30):
            pass
        os.fsync(out.fileno())
    found = sums_of(partial).sha256
    if found != source.name:
        partial.unlink()
        raise OnpremError(f"{source}: found sha256 {found} in its copy, expected {source.name}", hint=AGAIN)
    return size
