"""manifest.json of a bundle: what each blob is, and what is made from them where the bundle is loaded.

Its bytes are canonical (sorted keys, no spaces, one newline), since they are what is signed. Nothing in it depends on
the clock, the machine or the order in which things were found: the same lock makes the same bytes.
"""

import hashlib
import json
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from onprem_llm.errors import InvalidError
from onprem_llm.spec.canonical import (
    Digest,
    Hex256,
    Listed,
    Printable,
    SafeName,
    SafePath,
    Size,
    matching,
    no_name_twice,
    parse_json,
)
from onprem_llm.spec.fields import Model
from onprem_llm.spec.lock import Day
from onprem_llm.spec.problems import checked

SCHEMA = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
LAYOUT, INDEX, VOLUME = "oci-layout", "index.json", "volume.json"
BLOBS = "blobs/sha256"

_WHAT = "the manifest of a bundle"
AGAIN = "copy it again from where it was made"
NEWER = "update onprem-llm: a bundle carries the one that made it, see docs/bundle.md (install.sh)"
# A blob that plays several parts has the first of these that fits.
Role = Literal[
    "install", "lock", "sbom", "packages-index", "package", "wheel", "image-manifest", "image-config", "image-layer",
    "weights", "licence",
]  # fmt: skip
ROLES: tuple[Role, ...] = get_args(Role)


class Part(Model):
    """A piece of a blob that is larger than a volume; pieces stand in their order."""

    sha256: Hex256
    size: Annotated[int, Field(gt=0)]


class Blob(Model):
    """One artefact, stored once. `names` are what the views call it, for people and for messages.

    What is not carried is in the base.
    """

    sha256: Hex256
    size: Size
    role: Role
    names: Annotated[Listed[SafePath], Field(min_length=1)]
    carried: bool = True
    parts: Listed[Part] = ()

    @model_validator(mode="after")
    def _parts_make_the_whole(self) -> "Blob":
        if self.parts and sum(part.size for part in self.parts) != self.size:
            raise ValueError(f"{self.names[0]}: its parts are not as long as the whole")
        return self

    @property
    def label(self) -> str:
        """Name it for people."""
        return self.names[0]


class NamedFile(Model):
    """A file of a view: its path below the view's folder, and its blob."""

    path: SafePath
    sha256: Hex256


class RootFile(Model):
    """A small file at the root of the bundle."""

    name: Annotated[str, matching(r"oci-layout|index\.json", "oci-layout or index.json")]
    sha256: Hex256
    size: Size


class ImageView(Model):
    """An image: the name that the rendered plan uses, and the digest of its manifest for the lock's platform."""

    ref: Printable
    digest: Digest


def _inside(value: tuple[NamedFile, ...]) -> tuple[NamedFile, ...]:
    no_name_twice([file.path for file in value])
    return value


class FolderView(Model):
    """A folder that load makes. `kind` says below which; packages have `Packages` among their files."""

    kind: Literal["weights", "packages", "wheels", "licences"]
    name: Annotated[SafeName, matching(r"[^.].*", "a name that begins with no dot")]
    about: dict[Printable, Printable | Listed[Printable] | None] = Field(default_factory=dict)
    files: Annotated[Listed[NamedFile], AfterValidator(_inside)]


class Volume(Model):
    """A folder for one medium, and the blobs and parts in it."""

    name: Annotated[str, matching(r"vol-[0-9]{3,}", "vol- and three digits")]
    contents: Listed[Hex256]


class Manifest(Model):
    """All of a bundle."""

    schema_version: int = SCHEMA
    lock_sha256: Hex256
    made_with: Printable
    platform: Printable
    expires: Day | None = None
    base: Hex256 | None = None
    volume_size: int | None = None
    files: Listed[RootFile]
    blobs: Listed[Blob]
    images: Listed[ImageView] = ()
    folders: Listed[FolderView] = ()
    volumes: Listed[Volume] = ()

    @model_validator(mode="after")
    def _belongs_together(self) -> "Manifest":
        if problem := _problem(self):
            raise ValueError(problem)
        return self

    def data(self) -> bytes:
        """Return the canonical bytes."""
        value = self.model_dump(mode="json")
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"

    @property
    def sha256(self) -> str:
        """Name the bundle."""
        return hashlib.sha256(self.data()).hexdigest()

    @property
    def carried(self) -> tuple[Blob, ...]:
        """Return what is in the folder, or folders, of this bundle."""
        return tuple(blob for blob in self.blobs if blob.carried)

    @property
    def bytes(self) -> int:
        """Size of all that is carried."""
        return sum(blob.size for blob in self.carried)

    def of_role(self, role: Role) -> tuple[Blob, ...]:
        """Return the blobs of a role."""
        return tuple(blob for blob in self.blobs if blob.role == role)


def _problem(manifest: Manifest) -> str | None:
    sums = [blob.sha256 for blob in manifest.blobs]
    if sums != sorted(set(sums)):
        return "blobs: expected each once, sorted by sha256"
    if {file.name for file in manifest.files} != {LAYOUT, INDEX}:
        return f"files: expected {LAYOUT} and {INDEX}, each once"
    places = [f"{view.kind}/{view.name}" for view in manifest.folders]
    refs = [image.ref for image in manifest.images]
    if len(set(places)) < len(places) or len(set(refs)) < len(refs):
        return "an image or a folder stands twice"
    known = set(sums)
    wanted = {file.sha256 for view in manifest.folders for file in view.files}
    wanted |= {image.digest.removeprefix("sha256:") for image in manifest.images}
    if missing := sorted(wanted - known):
        return f"{missing[0]} is named, and is no blob of it"
    return _volume_problem(manifest)


def _volume_problem(manifest: Manifest) -> str | None:
    if not manifest.volumes:
        return "parts: only in volumes" if any(blob.parts for blob in manifest.blobs) else None
    names = [volume.name for volume in manifest.volumes]
    if names != [f"vol-{number:03}" for number in range(1, len(names) + 1)]:
        return "volumes: expected vol-001, vol-002, …"
    placed = [one for volume in manifest.volumes for one in volume.contents]
    pieces = [part.sha256 for blob in manifest.carried for part in blob.parts]
    whole = [blob.sha256 for blob in manifest.carried if not blob.parts]
    if set(placed) != {*pieces, *whole}:
        return "volumes: expected every blob and part in one of them, and nothing else"
    return None


def read_manifest(data: bytes, where: str) -> Manifest:
    """Read manifest.json; InvalidError where it is damaged, not canonical, or made by a newer tool."""
    value = parse_json(data, where, what=_WHAT, schema=SCHEMA, again=AGAIN, newer=NEWER)
    manifest = checked(Manifest, value, where=f"{where}: this is not {_WHAT}", hint=AGAIN)
    if manifest.data() != data:
        raise InvalidError(f"{where}: this is not {_WHAT}: its bytes are not the canonical ones", hint=AGAIN)
    return manifest
