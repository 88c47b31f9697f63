"""Images of a registry, through skopeo: by digest, byte for byte, with no container engine."""

import ipaddress
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.locking.blobs import Blobs, hint_for
from onprem_llm.locking.manifests import Manifest, check_platform, chosen, digest_of, parse
from onprem_llm.planning.staging import OWN_IMAGES, where_from
from onprem_llm.registry import at_address, repository
from onprem_llm.spec.lock import LockedImage

INSTALL = "install it: apt-get install skopeo, or dnf install skopeo"


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """How registries are reached. `address` is asked instead of the one that each image names."""

    address: str | None = None
    authfile: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class RegistryImages:
    """Images of one platform, from registries into the cache of blobs."""

    platform: str
    access: RegistryAccess
    blobs: Blobs

    def resolve(self, ref: str) -> LockedImage:
        """Say which image `ref` is now; its manifest and its configuration are kept. InvalidError says why not."""
        place = self._place(ref)
        data = self._raw(place, ref)
        if "@" in ref:
            _compare(ref, data, ref.partition("@")[2])
        picked = chosen(data, self.platform, ref)
        if picked is not None:
            data = self._raw(f"{repository(place.partition('@')[0])}@{picked}", ref)
            _compare(ref, data, picked)
        manifest = parse(data, ref)
        at = f"{repository(place.partition('@')[0])}@{manifest.digest}"
        check_platform(self._config(manifest, at, ref), self.platform, ref)
        self.blobs.put(manifest.data)
        return LockedImage(ref=ref, digest=manifest.digest, id=manifest.config.digest, size=manifest.size)

    def fetch(self, image: LockedImage) -> None:
        """Bring every blob of an image that is not here; what a fetch that was cut off had brought stays."""
        place = self._place(image.ref)
        at = f"{repository(place.partition('@')[0])}@{image.digest}"
        if not self.blobs.has(image.digest):
            self._manifest(image, at)
        manifest = parse(self.blobs.path(image.digest).read_bytes(), image.ref)
        if not self.blobs.has(manifest.config.digest, manifest.config.size):
            # A layout would have docker's in another form.
            self._config(manifest, at, image.ref)
        if not self._missing(manifest):
            return
        with tempfile.TemporaryDirectory(dir=self.blobs.folder, prefix=".layout-") as layout:
            # It reuses layers that are here, and keeps each that arrives whole.
            shared = ["--dest-shared-blob-dir", str(self.blobs.root.parent), "--dest-oci-accept-uncompressed-layers"]
            self._skopeo("copy", ["--quiet", *shared, *self._options(at, "src-")], at, image.ref, f"oci:{layout}")
        if self._missing(manifest):
            self._copy_as_it_is(manifest, at, image.ref)

    def blobs_of(self, image: LockedImage) -> set[str]:
        """Return the sha256 of every blob of an image whose manifest is here; nothing where it is not."""
        if not self.blobs.has(image.digest):
            return set()
        manifest = parse(self.blobs.path(image.digest).read_bytes(), image.ref)
        return {blob.sha256 for blob in manifest.blobs}

    def _manifest(self, image: LockedImage, at: str) -> None:
        """Bring the manifest of a locked image."""
        data = self._raw(at, image.ref)
        _compare(image.ref, data, image.digest)
        self.blobs.put(data)

    def _config(self, manifest: Manifest, at: str, ref: str) -> bytes:
        """Bring the configuration of an image, and return it."""
        config = self._skopeo("inspect", ["--config", "--raw", *self._options(at, "")], at, ref)
        _compare(ref, config, manifest.config.digest)
        self.blobs.put(config)
        return config

    def _missing(self, manifest: Manifest) -> bool:
        return any(not self.blobs.has(blob.digest, blob.size) for blob in manifest.blobs)

    def _copy_as_it_is(self, manifest: Manifest, at: str, ref: str) -> None:
        """Bring what a layout would have changed, all of it: layers that are packed in a way that it does not know."""
        with tempfile.TemporaryDirectory(dir=self.blobs.folder, prefix=".image-") as folder:
            options = ["--quiet", "--preserve-digests", *self._options(at, "src-")]
            self._skopeo("copy", options, at, ref, f"dir:{folder}")
            for blob in manifest.blobs:
                file = Path(folder, blob.sha256)
                if file.is_file():
                    self.blobs.take(file)

    def _place(self, ref: str) -> str:
        """Return where `ref` is asked for; skopeo takes a tag or a digest, never both."""
        if self.access.address is not None:
            ref = at_address(ref, self.access.address)
        name, at, digest = ref.partition("@")
        return f"{repository(name)}@{digest}" if at else name

    def _raw(self, place: str, ref: str) -> bytes:
        return self._skopeo("inspect", ["--raw", *self._options(place, "")], place, ref)

    def _options(self, place: str, side: str) -> list[str]:
        words = [f"--{side}tls-verify=false"] if _is_here(place) else []
        return [*words, *(["--authfile", str(self.access.authfile)] if self.access.authfile else [])]

    def _skopeo(self, verb: str, options: Sequence[str], place: str, ref: str, target: str | None = None) -> bytes:
        if shutil.which("skopeo") is None:
            raise OnpremError("skopeo is not on this machine, expected it to ask registries for images", hint=INSTALL)
        side = "src-" if verb == "copy" else ""
        with self._certificates() as folder:
            words = [f"--{side}cert-dir", folder] if folder else []
            # Whose signature an image has is not asked: it is taken by its digest, which the lock has.
            argv = ["skopeo", "--insecure-policy", verb, *options, *words, f"docker://{place}"]
            done = subprocess.run([*argv, *([target] if target else [])], capture_output=True, check=False)
        if done.returncode != 0:
            raise _refused(ref, place, done.stderr.decode("utf-8", "replace"))
        return done.stdout

    @contextmanager
    def _certificates(self) -> Iterator[str | None]:
        """Give a folder with the registry's CA, as skopeo takes it."""
        if self.access.ca_file is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="onprem-llm-") as folder:
            shutil.copy(self.access.ca_file, Path(folder, "ca.crt"))
            yield folder


def _is_here(place: str) -> bool:
    """Tell whether the registry of an image is on this machine: docker lets such a one speak plain HTTP, and so do we.

    The whole host counts: 127.0.0.1.example.org is somebody else's, who would be told the password.
    """
    host, slash, _ = place.partition("/")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return bool(slash)
    try:
        return bool(slash) and ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _compare(ref: str, data: bytes, digest: str) -> None:
    if digest_of(data) != digest:
        raise InvalidError(
            f"image {ref}: the registry sent {digest_of(data)}, expected {digest}",
            hint="run the command again; if it stays so, the registry is damaged, or somebody is in between",
        )


def _refused(ref: str, place: str, said: str) -> OnpremError:
    line = said.strip().splitlines()[-1] if said.strip() else "no reason"
    _, found, reason = line.partition('msg="')
    reason = (reason.rstrip('"') if found else line).replace('\\"', '"')
    low = reason.lower()
    if ref.startswith(OWN_IMAGES):
        # Docker's own registry asks for a login where an image is not there.
        hint = f"{where_from(ref)}; name the folder of its archive: --images-dir DIR"
    elif "unauthorized" in low or "denied" in low or "authentication required" in low:
        hint = "name a file with credentials: --authfile FILE (`skopeo login --authfile FILE REGISTRY` writes one)"
    elif "manifest unknown" in low or "name unknown" in low:
        hint = "mend the image's name, or put its `docker save` archive into the folder that images_dir names"
    elif "x509" in low or "certificate" in low:
        hint = "name the registry's CA: --registry-ca FILE"
    else:
        hint = hint_for(low, "see that this machine reaches the registry, and run the command again")
    return InvalidError(f"image {ref} cannot be had from {place}: {reason}", hint=hint)
