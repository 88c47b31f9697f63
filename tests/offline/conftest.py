"""What a bundle brings to a site with no way out."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from onprem_llm.bundle.registry_view import REF


class Bundle:
    """An OCI layout of small real images: each layer is a tar with one file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.index: dict[str, Any] = {"schemaVersion": 2, "manifests": []}

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        sha256 = hashlib.sha256(data).hexdigest()
        (self.blobs / sha256).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{sha256}", "size": len(data)}

    def image(self, ref: str, files: dict[str, bytes], *, kind: str = "oci") -> str:
        """Add an image with a layer a file; `kind` is oci or docker, whose media types differ."""
        layers = [self._layer(name, data, kind) for name, data in files.items()]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        types = {
            "oci": ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.manifest.v1+json"),
            "docker": (
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.distribution.manifest.v2+json",
            ),
        }[kind]
        manifest = {
            "schemaVersion": 2,
            "mediaType": types[1],
            "config": self.blob(json.dumps(config).encode(), types[0]),
            "layers": layers,
        }
        descriptor = self.blob(json.dumps(manifest).encode(), types[1])
        self.index["manifests"].append({**descriptor, "annotations": {REF: ref}})
        return str(descriptor["digest"])

    def _layer(self, name: str, data: bytes, kind: str) -> dict[str, Any]:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        tar_type = "application/vnd.oci.image.layer.v1.tar"
        return self.blob(out.getvalue(), tar_type if kind == "oci" else "application/vnd.docker.image.rootfs.diff.tar")

    def write(self) -> None:
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}\n')
        (self.folder / "index.json").write_text(json.dumps(self.index))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = Bundle(tmp_path / "bundle")
    layers = {"shared": os.urandom(200_000)}
    made.image("vllm/vllm-openai:v1", {**layers, "engine": os.urandom(3_000_000)})
    made.image("ghcr.io/open-webui/open-webui:v2", {**layers, "page": b"page"}, kind="docker")
    made.image("redis:7", {**layers, "redis": b"redis"}, kind="docker")
    made.write()
    return made
