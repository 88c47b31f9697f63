"""Images of a lock as blobs, and the index of an OCI image layout."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.locking.manifests import LARGEST, Manifest, parse
from onprem_llm.whole_files import write_whole

REF = "org.opencontainers.image.ref.name"
INDEX = "index.json"
LAYOUT_BYTES = b'{"imageLayoutVersion":"1.0.0"}\n'
AGAIN = "load the bundle again; if that does not help, make it anew from its lock"
Descriptors = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Image:
    """An image: what it is called, and its manifest."""

    ref: str
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """Return what its manifest is called among blobs."""
        return self.manifest.digest.removeprefix("sha256:")


def read_image(ref: str, digest: str, path: Path) -> Image:
    """Read the manifest of one platform; InvalidError where it is none, or is another than `digest`."""
    hint = f"remove {path} if it is damaged, and run the command again, or make the lock again"
    with path.open("rb") as stream:
        manifest = parse(stream.read(LARGEST + 1), f"{ref} ({digest})", hint)
    if manifest.digest != digest:
        raise InvalidError(f"{path}: found {manifest.digest}, expected the manifest of {ref}, {digest}", hint=hint)
    return Image(ref, manifest)


def index_bytes(images: Iterable[Image]) -> bytes:
    """Return index.json: a descriptor an image, named as the rendered plan names it."""
    return _bytes({
        image.ref: {
            "annotations": {REF: image.ref},
            "digest": image.manifest.digest,
            "mediaType": image.manifest.media_type,
            "size": len(image.manifest.data),
        }
        for image in images
    })  # fmt: skip


def descriptors(index: Mapping[str, object], where: str = INDEX) -> Descriptors:
    """Return the images of an index by their names; InvalidError for one without a name, or with two meanings."""
    entries = index.get("manifests")
    if not is_list(entries):
        raise InvalidError(f"{where}: this is no index of images", hint=f"remove it, and {AGAIN}")
    found: dict[str, Mapping[str, object]] = {}
    for entry in entries:
        notes = entry.get("annotations") if is_mapping(entry) else None
        ref = notes.get(REF) if is_mapping(notes) else None
        if not is_mapping(entry) or not isinstance(ref, str):
            raise InvalidError(f"{where}: an image without the annotation {REF}", hint=AGAIN)
        if found.setdefault(ref, entry).get("digest") != entry.get("digest"):
            raise InvalidError(f"image {ref}: the index names it twice, with two digests", hint=AGAIN)
    return found


def add_to_index(path: Path, index: Mapping[str, object]) -> None:
    """Write the images of an index into one that may be there: earlier ones stay, unless their names come again."""
    write_whole(path, _bytes({**_known(path), **descriptors(index)}))


def _known(path: Path) -> Descriptors:
    try:
        data = path.read_bytes()
        value: object = json.loads(data) if data else {"manifests": []}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidError(f"{path}: this is no index of images: {error}", hint=f"remove it, and {AGAIN}") from None
    return descriptors(value if is_mapping(value) else {}, str(path))


def _bytes(images: Descriptors) -> bytes:
    manifests = [dict(images[ref]) for ref in sorted(images)]
    index = {"manifests": manifests, "mediaType": "application/vnd.oci.image.index.v1+json", "schemaVersion": 2}
    return json.dumps(index, sort_keys=True, separators=(",", ":")).encode() + b"\n"
