"""Whether a Ray cluster can run from an image: what its layers have of Ray and vLLM, where they are on this machine.

`cluster up` asks the image itself, on the hosts (roles/ray_cluster); here nothing is run, and no engine is wanted.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from onprem_llm.errors import InvalidError
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.manifests import parse
from onprem_llm.spec.lock import LockedImage

# With it Ray's own requirements name the vLLM that it is made for.
EXTRA = "llm"
RECORD = re.compile(r"(?:\./)?((?:.*/)?(?:site|dist)-packages/(ray|vllm)-([^/]+)\.dist-info)/METADATA")
HIDES, HIDES_ALL = ".wh.", ".wh..wh..opq"  # OCI image specification, layer.md, Whiteouts
LEAST = Version("2.60")  # as roles/ray_cluster has it, which says why
ANOTHER = "name another in onprem_llm_site.ray.image: one of rayproject/ray-llm, or your own (docs/images.md)"
# A layer that is damaged, or packed in a way that this Python does not know.
UNREADABLE = (tarfile.TarError, zlib.error, EOFError, OSError)


@dataclass(frozen=True, slots=True)
class Found:
    """The versions that an image has records of; `made_for` is the vLLM that its Ray names, '' where it names none."""

    ray: str | None = None
    vllm: str | None = None
    made_for: str = ""

    @property
    def matches(self) -> bool:
        """Tell whether the vLLM is one that this Ray is made for; a version's local part (+cpu) does not count."""
        try:
            return self.vllm is None or SpecifierSet(self.made_for, prereleases=True).contains(
                Version(self.vllm).public
            )
        except InvalidVersion:
            return True

    @property
    def is_old(self) -> bool:
        """Tell whether its Ray is one that `cluster up` refuses."""
        try:
            return self.ray is not None and Version(self.ray).release[:2] < LEAST.release
        except InvalidVersion:
            return False


@dataclass(slots=True)
class _Records:
    """Records of Ray and vLLM by their folders, as the layers put them there and take them away."""

    found: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)  # folder -> distribution, version, METADATA

    def read(self, layer: Path) -> None:
        """Apply a layer on top of those before it."""
        with _opened(layer) as tar:
            for member in _members(tar):
                self._hide(member.name.removeprefix("./"))
                if match := RECORD.fullmatch(member.name):
                    content = tar.extractfile(member) if member.isreg() else None
                    self.found[match[1]] = (match[2], match[3], content.read() if content else b"")

    def _hide(self, name: str) -> None:
        path, slash, last = name.rpartition("/")
        if not last.startswith(HIDES):
            return
        gone = f"{path}{slash}" if last == HIDES_ALL else f"{path}{slash}{last.removeprefix(HIDES)}/"
        self.found = {at: one for at, one in self.found.items() if not f"{at}/METADATA".startswith(gone)}

    @property
    def versions(self) -> Found:
        """Say what is left."""
        last = {name: (version, data) for _, (name, version, data) in sorted(self.found.items())}
        ray, vllm = last.get("ray"), last.get("vllm")
        return Found(ray[0] if ray else None, vllm[0] if vllm else None, _made_for(ray[1]) if ray else "")


def look(image: LockedImage, blobs: Blobs) -> Found | None:
    """Return what an image has; None where not all of its layers are here, or one cannot be read."""
    if not blobs.has(image.digest):
        return None
    layers = parse(blobs.path(image.digest).read_bytes(), image.ref).layers
    if not all(blobs.has(layer.digest, layer.size) for layer in layers):
        return None
    records = _Records()
    try:
        for layer in layers:
            records.read(blobs.path(layer.digest))
    except UNREADABLE:
        return None
    return records.versions


def check(image: LockedImage, blobs: Blobs) -> tuple[str, ...]:
    """Return what a person should know; InvalidError for an image without Ray, or with another vLLM than its Ray's."""
    found = look(image, blobs)
    if found is None:
        return (f"{image.ref}: whether it has Ray is not known yet: its layers are not here; bundle create looks",)
    if found.ray is None:
        raise InvalidError(
            f"found no Ray in the image {image.ref} (vLLM {found.vllm or '(none)'}), expected one with Ray: vLLM's own "
            "images are without it",
            hint=ANOTHER,
        )
    if found.is_old:
        raise InvalidError(
            f"the image {image.ref} has Ray {found.ray}, expected {LEAST} or newer: older ones stop a model's only "
            "replica before they start the one that takes its place",
            hint=ANOTHER,
        )
    if not found.matches:
        raise InvalidError(
            f"the image {image.ref} has Ray {found.ray} and vLLM {found.vllm}, expected vLLM {found.made_for}: the one "
            "that this Ray is made for",
            hint=ANOTHER,
        )
    if found.vllm is None:
        return (f"{image.ref}: Ray {found.ray} and no vLLM: a cluster starts from it, and serves no model",)
    return ()


@contextmanager
def _opened(layer: Path) -> Iterator[tarfile.TarFile]:
    """Open a layer; of one that is not packed files are skipped over, not read."""
    try:
        tar = tarfile.open(layer, "r:")  # noqa: SIM115 - closed below
    except tarfile.ReadError:
        tar = tarfile.open(layer, "r|*")  # noqa: SIM115
    with tar:
        yield tar


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        yield member
        tar.members = []  # type: ignore[attr-defined]  # there may be a hundred thousand, none is wanted twice


def _made_for(metadata: bytes) -> str:
    """Return which vLLM a distribution's llm extra asks for, as it says it (==0.29.0); '' where it does not."""
    for line in BytesHeaderParser().parsebytes(metadata).get_all("Requires-Dist", []):
        try:
            one = Requirement(line)
        except InvalidRequirement:
            continue
        if one.name.lower() == "vllm" and (one.marker is None or one.marker.evaluate({"extra": EXTRA})):
            return str(one.specifier)
    return ""
