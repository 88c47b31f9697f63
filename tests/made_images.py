"""Small made-up images: their blobs, and the folder of blobs with an index that a bundle is."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onprem_llm.bundle.images import REF

# What manifest, configuration and layer are called; docker's registry keeps both kinds.
KINDS = {
    "oci": (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.layer.v1.tar",
    ),
    "docker": (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar",
    ),
}
PACKED = {"oci": "+gzip", "docker": ".gzip"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def described(data: bytes, kind: str) -> dict[str, Any]:
    """Return the descriptor of a blob."""
    return {"mediaType": kind, "digest": f"sha256:{sha256(data)}", "size": len(data)}


def tar_of(name: str, data: bytes) -> bytes:
    """Return the tar of a layer with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def configuration(*tars: bytes, architecture: str = "amd64") -> bytes:
    """Return an image's configuration, with a field of docker's own that OCI does not know."""
    return json.dumps({
        "architecture": architecture, "os": "linux", "docker_version": "26.1.5", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(tar)}" for tar in tars]},
    }).encode()  # fmt: skip


@dataclass(frozen=True)
class Image:
    """An image as registries hold it: the bytes of its blobs, and of the manifest that names them."""

    kind: str
    config: bytes
    layers: tuple[bytes, ...]
    manifest: bytes

    @property
    def blobs(self) -> Iterator[bytes]:
        yield self.config
        yield from self.layers

    @property
    def descriptor(self) -> dict[str, Any]:
        return described(self.manifest, KINDS[self.kind][0])


def image(
    *tars: bytes, kind: str = "oci", architecture: str = "amd64", packed: bool = False, config: bytes | None = None
) -> Image:
    """Make an image; `kind` is oci or docker, `packed` layers are gzip, `config` is in place of a right one."""
    manifest_kind, config_kind, layer_kind = KINDS[kind]
    layers = tuple(gzip.compress(tar, mtime=0) if packed else tar for tar in tars)
    config = config if config is not None else configuration(*tars, architecture=architecture)
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_kind,
        "config": described(config, config_kind),
        "layers": [described(layer, layer_kind + (PACKED[kind] if packed else "")) for layer in layers],
    }
    return Image(kind, config, layers, json.dumps(manifest).encode())


class Layout:
    """A folder of blobs and an index, as a bundle has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.index: dict[str, Any] = {"schemaVersion": 2, "manifests": []}

    def keep(self, data: bytes) -> str:
        """Add a blob, and return its digest."""
        (self.blobs / sha256(data)).write_bytes(data)
        return f"sha256:{sha256(data)}"

    def add(self, ref: str, made: Image) -> str:
        """Add an image by its name, and return its digest."""
        for blob in made.blobs:
            self.keep(blob)
        self.index["manifests"].append({**made.descriptor, "annotations": {REF: ref}})
        return self.keep(made.manifest)

    def write(self) -> None:
        """Write what makes the folder an OCI layout."""
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}\n')
        (self.folder / "index.json").write_text(json.dumps(self.index))
