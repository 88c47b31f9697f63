"""Images of a lock as blobs, and the index of an OCI image layout."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_list, is_mapping

REF = "org.opencontainers.image.ref.name"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYOUT_BYTES = b'{"imageLayoutVersion":"1.0.0"}\n'
_LARGEST_MANIFEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ImageBlob:
    """A configuration or a layer."""

    sha256: str
    size: int
    layer: bool


@dataclass(frozen=True, slots=True)
class Image:
    """An image's manifest: what it is called, its kind, size and blobs."""

    ref: str
    sha256: str
    size: int
    media_type: str
    blobs: tuple[ImageBlob, ...]


def read_image(ref: str, digest: str, path: Path) -> Image:
    """Read the manifest of one platform; InvalidError where it is none."""
    where = f"{ref} ({digest})"
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise _refused(where, "it is too large")
    data = path.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise _refused(where, "it is not JSON") from None
    layers, config = (value.get("layers"), value.get("config")) if is_mapping(value) else (None, None)
    if not is_mapping(value) or not is_list(layers) or not is_mapping(config):
        raise _refused(where, "it has no config and layers (an index of several platforms?)")
    blobs = (_blob(where, config, layer=False), *(_blob(where, layer, layer=True) for layer in layers))
    kind = value.get("mediaType")
    return Image(
        ref, digest.removeprefix("sha256:"), len(data), kind if isinstance(kind, str) else OCI_MANIFEST, blobs
    )  # fmt: skip


def index_bytes(images: Iterable[Image]) -> bytes:
    """Return index.json: a descriptor an image, named as the rendered plan names it."""
    descriptors = [
        {
            "annotations": {REF: image.ref},
            "digest": f"sha256:{image.sha256}",
            "mediaType": image.media_type,
            "size": image.size,
        }
        for image in sorted(images, key=lambda one: one.ref)
    ]
    index = {"manifests": descriptors, "mediaType": "application/vnd.oci.image.index.v1+json", "schemaVersion": 2}
    return json.dumps(index, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def merged_index(known: bytes, new: bytes, where: str) -> bytes:
    """Return the index of all images of a site: those of an earlier bundle stay, unless the new one has their name."""
    by_ref: dict[str, object] = {}
    for data in (known, new):
        value = _json(data) if data else {}
        manifests = value.get("manifests", []) if is_mapping(value) else None
        if not is_list(manifests):
            raise InvalidError(f"{where}: no index of an image layout", hint="remove it, and load again")
        for one in manifests:
            notes = one.get("annotations") if is_mapping(one) else None
            if is_mapping(notes):
                by_ref[str(notes.get(REF))] = one
    index = {
        "manifests": [by_ref[ref] for ref in sorted(by_ref)],
        "mediaType": "application/vnd.oci.image.index.v1+json", "schemaVersion": 2,
    }  # fmt: skip
    return json.dumps(index, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _json(data: bytes) -> object:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value


def _blob(where: str, descriptor: object, *, layer: bool) -> ImageBlob:
    digest, size = (
        (descriptor.get("digest"), descriptor.get("size")) if is_mapping(descriptor) else (None, None)
    )  # fmt: skip
    good = isinstance(digest, str) and digest.startswith("sha256:") and len(digest) == len("sha256:") + 64
    if not good or not isinstance(digest, str) or not isinstance(size, int):
        raise _refused(where, f"found {descriptor!r:.120}, expected a digest and a size")
    return ImageBlob(digest.removeprefix("sha256:"), size, layer)


def _refused(where: str, why: str) -> InvalidError:
    return InvalidError(f"image {where}: no manifest of one platform: {why}", hint="make the lock again")
