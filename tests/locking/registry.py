"""A real docker-registry on loopback, and images pushed into it as registries hold them."""

import base64
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.loopback import free_port, serving
from tests.made_images import described, image, sha256, tar_of

INDEX = {
    "oci": "application/vnd.oci.image.index.v1+json",
    "docker": "application/vnd.docker.distribution.manifest.list.v2+json",
}
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

    def blob(self, name: str, data: bytes) -> None:
        place = self.call("POST", f"/v2/{name}/blobs/uploads/", b"").headers["Location"]
        path = place.partition(self.address)[2] or place
        joined = "&" if "?" in path else "?"
        kind = {"Content-Type": "application/octet-stream"}
        self.call("PUT", f"{path}{joined}digest=sha256:{sha256(data)}", data, **kind)

    def put(self, name: str, tag: str, manifest: bytes, kind: str) -> None:
        self.call("PUT", f"/v2/{name}/manifests/{tag}", manifest, **{"Content-Type": kind})

    def image(
        self, name: str, tag: str, *, architecture: str = "amd64", docker: bool = False, packed: bool = True
    ) -> dict[str, Any]:
        """Push an image of one layer, and return its descriptor; docker's kinds or OCI's."""
        made = image(
            layer(f"{name} {tag} {architecture}"),
            kind="docker" if docker else "oci", architecture=architecture, packed=packed,
        )  # fmt: skip
        for blob in made.blobs:
            self.blob(name, blob)
        self.put(name, tag, made.manifest, made.descriptor["mediaType"])
        return made.descriptor

    def index(self, name: str, tag: str, *platforms: str, docker: bool = False) -> dict[str, Any]:
        """Push a list of images, with an attestation beside them as builders add it."""
        entries = []
        for platform in platforms:
            arch, _, variant = platform.partition("/")
            entry = self.image(name, f"{tag}-{arch}", architecture=arch, docker=docker)
            about = {"os": "linux", "architecture": arch, **({"variant": variant} if variant else {})}
            entries.append({**entry, "platform": about})
        unknown = {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}}
        kind = INDEX["docker" if docker else "oci"]
        data = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [unknown, *entries]}).encode()
        self.put(name, tag, data, kind)
        return described(data, kind)


def layer(text: str) -> bytes:
    """Return the tar of a layer that is known by its text."""
    return tar_of("etc/what", (text * 1000).encode())


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
