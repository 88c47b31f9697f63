"""Image manifests: the one for a platform out of a list, and what it consists of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_mapping
from onprem_llm.probe_values import mapping, mappings, number, text

LISTS = {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
SINGLE = {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
# What an arm64 manifest may say beside its architecture; x86-64 ones say nothing.
_VARIANTS = {"linux/amd64": {None, "v1"}, "linux/arm64": {None, "v8"}}


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob of an image."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest of one platform: its own bytes, its configuration and its layers."""

    data: bytes
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        """Return its digest."""
        return digest_of(self.data)

    @property
    def size(self) -> int:
        """Return the bytes of all blobs, each once, its own too."""
        blobs = {blob.digest: blob.size for blob in (self.config, *self.layers)}
        return len(self.data) + sum(blobs.values())


def digest_of(data: bytes) -> str:
    """Return the digest by which a registry knows bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chosen(data: bytes, platform: str, ref: str) -> str | None:
    """Return the digest of the manifest for `platform` where `data` is a list of them; None where it is none."""
    value = _json(data, ref)
    if not _is_list(value):
        return None
    entries = [entry for entry in mappings(value.get("manifests")) if _fits(mapping(entry.get("platform")), platform)]
    if not entries:
        raise InvalidError(
            f"image {ref} is not there for {platform}; it is for {', '.join(_platforms(value)) or 'no platform'}",
            hint="name an image for this platform, or take the hosts of another architecture out of the facts",
        )
    return text(entries[0], "digest") or ""


def parse(data: bytes, ref: str) -> Manifest:
    """Read the manifest of one platform; InvalidError where it is something else."""
    value = _json(data, ref)
    kind = text(value, "mediaType") or "application/vnd.oci.image.manifest.v1+json"
    config, layers = mapping(value.get("config")), mappings(value.get("layers"))
    if kind not in SINGLE or number(value, "schemaVersion") != 2 or not config:
        raise InvalidError(
            f"image {ref}: found a manifest of the kind {kind}, expected an image of one platform",
            hint="push the image again with a current docker or skopeo",
        )
    return Manifest(data, _blob(config, ref), tuple(_blob(layer, ref) for layer in layers))


def check_platform(config: bytes, platform: str, ref: str) -> None:
    """Raise InvalidError where an image's configuration says that it is for another platform."""
    value = _json(config, ref)
    found = f"{text(value, 'os') or 'linux'}/{text(value, 'architecture') or 'unknown'}"
    if found != platform:
        raise InvalidError(
            f"image {ref} is for {found}, expected {platform}, which the hosts of the facts are",
            hint="name an image for this platform",
        )


def _blob(value: Mapping[str, object], ref: str) -> Blob:
    digest, size = text(value, "digest") or "", number(value, "size")
    known = digest.startswith("sha256:") and len(digest) == 71 and not set(digest[7:]) - set("0123456789abcdef")
    if not known or size is None or size < 0:
        raise InvalidError(f"image {ref}: a blob of its manifest has no sha256 and size: {dict(value)}")
    return Blob(digest, size)


def _is_list(value: Mapping[str, object]) -> bool:
    kind = text(value, "mediaType")
    return kind in LISTS or (kind is None and "manifests" in value)


def _fits(found: Mapping[str, object], platform: str) -> bool:
    name = f"{text(found, 'os')}/{text(found, 'architecture')}"
    return name == platform and text(found, "variant") in _VARIANTS[platform]


def _platforms(value: Mapping[str, object]) -> Sequence[str]:
    found = [mapping(entry.get("platform")) for entry in mappings(value.get("manifests"))]
    return sorted({f"{text(one, 'os')}/{text(one, 'architecture')}" for one in found} - {"unknown/unknown"})


def _json(data: bytes, ref: str) -> Mapping[str, object]:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"image {ref}: the registry sent what is no JSON: {error}") from None
    if not is_mapping(value):
        raise InvalidError(f"image {ref}: the registry sent what is no manifest")
    return value
