"""Images of an OCI layout as a registry's storage: what docker-registry serves when it is started over the folder.

The layout is that of distribution's filesystem driver, version 2 (its registry/storage/paths.go): a blob lies once,
under its sum; that a repository has it, and what a tag means, are small files that hold a digest.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.image_names import ImageName, image_name
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.weights.sums import sums_of
from onprem_llm.whole_files import write_whole

REF = "org.opencontainers.image.ref.name"
ROOT = "docker/registry/v2"
INDEX = "index.json"
# A registry takes no larger manifest either.
LARGEST_MANIFEST = 4 * 1024 * 1024
_IMAGES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_AGAIN = "load the bundle again; if that does not help, make it anew from its lock"
ReadManifest = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class RegistryView:
    """The files of a registry's storage, paths below its folder."""

    blobs: Mapping[str, int]  # hex sha256 -> bytes
    links: Mapping[str, str]  # path -> the digest in it
    images: Mapping[str, str]  # ref -> digest


def blob_path(sha256: str) -> str:
    """Return where a blob lies."""
    return f"{ROOT}/blobs/sha256/{sha256[:2]}/{sha256}/data"


def view_of(index: Mapping[str, object], read: ReadManifest) -> RegistryView:
    """Return what a registry needs for the images of an index; `read` gives a manifest's bytes by hex sha256.

    InvalidError for names that docker would not take, for a ref that means two images, and for what is no image of one
    platform.
    """
    descriptors = _descriptors(index)
    blobs: dict[str, int] = {}
    links: dict[str, str] = {}
    for ref, descriptor in sorted(descriptors.items()):
        name, manifest, size = image_name(ref), *_described(descriptor, ref)
        base = f"{ROOT}/repositories/{name.repository}"
        links |= _manifest_links(base, name, manifest)
        content = _content(read(manifest), ref, manifest, size)
        links |= {f"{base}/_layers/sha256/{sha256}/link": f"sha256:{sha256}" for sha256, _ in content}
        for sha256, length in ((manifest, size), *content):
            if blobs.setdefault(sha256, length) != length:
                raise _refused(ref, f"sha256:{sha256} has {length} bytes here and {blobs[sha256]} in another image")
    return RegistryView(blobs, links, {ref: str(one["digest"]) for ref, one in descriptors.items()})


def _manifest_links(base: str, name: ImageName, manifest: str) -> dict[str, str]:
    digest = f"sha256:{manifest}"
    links = {f"{base}/_manifests/revisions/sha256/{manifest}/link": digest}
    if name.tag is not None:
        tag = f"{base}/_manifests/tags/{name.tag}"
        links |= {f"{tag}/current/link": digest, f"{tag}/index/sha256/{manifest}/link": digest}
    return links


def _descriptors(index: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    entries = index.get("manifests")
    found: dict[str, Mapping[str, object]] = {}
    for entry in entries if is_list(entries) else []:
        notes = entry.get("annotations") if is_mapping(entry) else None
        ref = notes.get(REF) if is_mapping(notes) else None
        if not is_mapping(entry) or not isinstance(ref, str):
            raise InvalidError(f"index.json: an image without the annotation {REF}", hint=_AGAIN)
        if found.setdefault(ref, entry).get("digest") != entry.get("digest"):
            raise _refused(ref, "the index names it twice, with two digests")
    return found


def _described(descriptor: object, ref: str) -> tuple[str, int]:
    """Return the hex sha256 and the bytes of a descriptor."""
    digest, size = (descriptor.get("digest"), descriptor.get("size")) if is_mapping(descriptor) else (None, None)
    algorithm, _, value = digest.partition(":") if isinstance(digest, str) else ("", "", "")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise _refused(ref, f"found the digest {digest!r:.90}, expected sha256: and 64 hex digits")
    if type(size) is not int or size < 0:
        raise _refused(ref, f"found the size {size!r:.40}, expected bytes")
    return value, size


def _content(data: bytes, ref: str, sha256: str, size: int) -> list[tuple[str, int]]:
    """Return (hex sha256, bytes) of an image's configuration and layers."""
    if len(data) != size or len(data) > LARGEST_MANIFEST:
        raise _refused(ref, f"its manifest sha256:{sha256} has {len(data)} bytes, expected {size}")
    try:
        manifest: object = json.loads(data)
    except (ValueError, RecursionError):
        manifest = None
    if not is_mapping(manifest) or not is_list(layers := manifest.get("layers")):
        raise _refused(ref, f"sha256:{sha256} is no manifest of one platform")
    if manifest.get("mediaType", _IMAGES[0]) not in _IMAGES:
        raise _refused(ref, f"found a manifest of the type {manifest['mediaType']!r:.90}, expected an image's")
    return [_described(one, ref) for one in (manifest.get("config"), *layers)]


def _refused(ref: str, why: str) -> InvalidError:
    return InvalidError(f"image {ref}: {why}", hint=_AGAIN)


def write_registry(index: Mapping[str, object], blobs: Path, target: Path) -> int:
    """Make or complete a registry's storage in `target`; return how many bytes were copied (links cost none).

    `blobs` holds every blob under its hex sha256, verified. Images that an earlier call brought stay; a ref that comes
    again means the new image from then on. index.json is written last: it names nothing that is not whole.
    """
    view = view_of(index, lambda sha256: _manifest_bytes(blobs / sha256))
    copied = sum(_place(blobs / sha256, target / blob_path(sha256), size) for sha256, size in view.blobs.items())
    for path, digest in view.links.items():
        write_whole(target / path, digest.encode())
    write_whole(target / INDEX, _index_bytes({**_known(target / INDEX), **_descriptors(index)}))
    return copied


def _manifest_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        raise InvalidError(f"{path}: a manifest cannot be read: {error.strerror}", hint=_AGAIN) from None


def _known(path: Path) -> dict[str, Mapping[str, object]]:
    try:
        value: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidError(f"{path}: this is no index of images: {error}", hint=f"remove it, and {_AGAIN}") from None
    return _descriptors(value if is_mapping(value) else {"manifests": [None]})


def _index_bytes(images: Mapping[str, Mapping[str, object]]) -> bytes:
    manifests = [dict(images[ref]) for ref in sorted(images)]
    value = {"manifests": manifests, "mediaType": "application/vnd.oci.image.index.v1+json", "schemaVersion": 2}
    return json.dumps(value, sort_keys=True, indent=1).encode() + b"\n"


def _place(source: Path, target: Path, size: int) -> int:
    """Link or copy a blob, whole or not at all; return the bytes that were copied."""
    try:
        there = source.stat()
    except OSError as error:
        raise InvalidError(f"{source}: a blob of an image cannot be read: {error.strerror}", hint=_AGAIN) from None
    if there.st_size != size:
        raise InvalidError(f"{source}: found {there.st_size} bytes, expected {size}", hint=_AGAIN)
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
        raise OnpremError(f"{source}: found sha256 {found} in its copy, expected {source.name}", hint=_AGAIN)
    return size
