"""A real docker-registry on loopback, and images pushed into it as registries hold them."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.loopback import free_port, serving

OCI = "application/vnd.oci.image.{}.v1+json"
DOCKER = "application/vnd.docker.distribution.{}.v2+json"
# alice:secret, as htpasswd -B writes it.
HTPASSWD = "alice:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@dataclass
class Registry:
    """A registry that answers; `requests` are the lines of its access log."""

    address: str
    log: Path
    password: str | None = None

    def requests(self, method: str, part: str) -> int:
        """Count what it was asked for so far."""
        return sum(f'"{method} ' in line and part in line for line in self.log.read_text().splitlines())

    def call(self, method: str, path: str, data: bytes | None = None, **headers: str) -> Any:
        request = urllib.request.Request(f"http://{self.address}{path}", data, headers, method=method)
        if self.password:
            word = base64.b64encode(f"alice:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        return urllib.request.urlopen(request, timeout=10)  # noqa: S310

    def damage(self, digest: str) -> None:
        """Flip a bit of a blob on the registry's disk."""
        file = self.log.parent / "data/docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:] / "data"
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)

    def blob(self, name: str, data: bytes) -> dict[str, object]:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        place = self.call("POST", f"/v2/{name}/blobs/uploads/", b"").headers["Location"]
        path = place.partition(self.address)[2] or place
        joined = "&" if "?" in path else "?"
        kind = {"Content-Type": "application/octet-stream"}
        self.call("PUT", f"{path}{joined}digest={digest}", data, **kind)
        return {"digest": digest, "size": len(data)}

    def manifest(self, name: str, tag: str, value: dict[str, object]) -> dict[str, object]:
        data = json.dumps(value).encode()
        self.call("PUT", f"/v2/{name}/manifests/{tag}", data, **{"Content-Type": str(value["mediaType"])})
        return {"mediaType": value["mediaType"], "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
                "size": len(data)}  # fmt: skip

    def image(
        self, name: str, tag: str, *, architecture: str = "amd64", docker: bool = False, packed: bool = True
    ) -> dict[str, object]:
        """Push an image of one layer, and return its descriptor; docker's kinds or OCI's."""
        tar = layer(f"{name} {tag} {architecture}")
        config = configuration(tar, architecture)
        kind = DOCKER.format("manifest") if docker else OCI.format("manifest")
        config_kind = "application/vnd.docker.container.image.v1+json" if docker else OCI.format("config")
        kinds = ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar")
        layer_kind = kinds[0] if docker else kinds[1]
        zipped = gzip.compress(tar, mtime=0) if packed else tar
        layer_kind += (".gzip" if docker else "+gzip") if packed else ""
        return self.manifest(name, tag, {
            "schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": config_kind, **self.blob(name, config)},
            "layers": [{"mediaType": layer_kind, **self.blob(name, zipped)}],
        })  # fmt: skip

    def index(self, name: str, tag: str, *platforms: str, docker: bool = False) -> dict[str, object]:
        """Push a list of images, with an attestation beside them as builders add it."""
        entries = []
        for platform in platforms:
            arch, _, variant = platform.partition("/")
            entry = self.image(name, f"{tag}-{arch}", architecture=arch, docker=docker)
            about = {"os": "linux", "architecture": arch, **({"variant": variant} if variant else {})}
            entries.append({**entry, "platform": about})
        unknown = {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}}
        kind = DOCKER.format("manifest.list") if docker else OCI.format("index")
        return self.manifest(name, tag, {"schemaVersion": 2, "mediaType": kind, "manifests": [unknown, *entries]})


def layer(text: str) -> bytes:
    """Return the tar of a layer with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        data = (text * 1000).encode()
        info = tarfile.TarInfo("etc/what")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def configuration(tar: bytes, architecture: str = "amd64") -> bytes:
    """Return an image's configuration, with a field of docker's own that OCI does not know."""
    diff = "sha256:" + hashlib.sha256(tar).hexdigest()
    return json.dumps({
        "architecture": architecture, "os": "linux", "docker_version": "26.1.5", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }).encode()  # fmt: skip


@contextmanager
def running(folder: Path, *, password: bool = False) -> Iterator[Registry]:
    """Run a registry below a folder that there need not be; with a password, only alice may come in."""
    folder.mkdir(exist_ok=True)
    port, auth = free_port(), ""
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        auth = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {accesslog: {disabled: false}, level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    with serving(folder / "config.yml", port) as address:
        yield Registry(address, folder / "registry.log", "secret" if password else None)
