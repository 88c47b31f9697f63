"""Image manifests: the one for a platform out of a list, and what it consists of."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.probe_values import mapping, mappings, text

LISTS = {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
OCI = "application/vnd.oci.image.manifest.v1+json"
SINGLE = {OCI, "application/vnd.docker.distribution.manifest.v2+json"}
# A registry takes no larger one.
LARGEST = 4 * 1024 * 1024
_PUSH = "push the image again with a current docker or skopeo"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
# What an arm64 manifest may say beside its architecture; x86-64 ones say nothing.
_VARIANTS = {"linux/amd64": {None, "v1"}, "linux/arm64": {None, "v8"}}


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob of an image: its digest (sha256:…) and its bytes."""

    digest: str
    size: int

    @property
    def sha256(self) -> str:
        """Return what it is called among blobs."""
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest of one platform: its own bytes, its configuration and its layers."""

    data: bytes
    config: Blob
    layers: tuple[Blob, ...]
    media_type: str = OCI

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Return the configuration, and the layers in their order."""
        return self.config, *self.layers

    @property
    def digest(self) -> str:
        """Return its digest."""
        return digest_of(self.data)

    @property
    def size(self) -> int:
        """Return the bytes of all blobs, each once, its own too."""
        blobs = {blob.digest: blob.size for blob in self.blobs}
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


def parse(data: bytes, ref: str, hint: str = _PUSH) -> Manifest:
    """Read the manifest of one platform; InvalidError with `hint` where it is something else."""
    if len(data) > LARGEST:
        raise InvalidError(f"image {ref}: its manifest is larger than {LARGEST} bytes: no registry takes it", hint=hint)
    value = _json(data, ref, hint)
    kind, version, layers = value.get("mediaType", OCI), value.get("schemaVersion"), value.get("layers")
    known = isinstance(kind, str) and kind in SINGLE and version == 2
    if not known or not is_list(layers) or "config" not in value:
        raise InvalidError(
            f"image {ref}: found a manifest of the kind {str(kind)[:90]}, version {str(version)[:9]}, expected an "
            "image of one platform",
            hint=hint,
        )
    config, *rest = (described(one, ref, hint) for one in (value["config"], *layers))
    return Manifest(data, config, tuple(rest), str(kind))


def check_platform(config: bytes, platform: str, ref: str) -> None:
    """Raise InvalidError where an image's configuration says that it is for another platform."""
    value = _json(config, ref)
    found = f"{text(value, 'os') or 'linux'}/{text(value, 'architecture') or 'unknown'}"
    if found != platform:
        raise InvalidError(
            f"image {ref} is for {found}, expected {platform}, which the hosts of the facts are",
            hint="name an image for this platform",
        )


def described(value: object, ref: str, hint: str = _PUSH) -> Blob:
    """Return the blob that a descriptor in a manifest or an index names; InvalidError with `hint` where it is none."""
    digest, size = (value.get("digest"), value.get("size")) if is_mapping(value) else (None, None)
    # What it says becomes a name of a file.
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or type(size) is not int or size < 0:
        raise InvalidError(
            f"image {ref}: found the digest {digest!r:.90} and the size {size!r:.40}, expected sha256: and 64 hex "
            "digits, and bytes",
            hint=hint,
        )
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


def _json(data: bytes, ref: str, hint: str = _PUSH) -> Mapping[str, object]:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"image {ref}: its manifest is no JSON: {error}", hint=hint) from None
    if not is_mapping(value):
        raise InvalidError(f"image {ref}: found JSON that is no manifest of an image", hint=hint)
    return value
