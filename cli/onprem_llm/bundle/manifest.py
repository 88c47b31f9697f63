"""manifest.json of a bundle: what each blob is, and what is made from them where the bundle is loaded.

Its bytes are canonical (sorted keys, no spaces, one newline), since they are what is signed. Nothing in it depends on
the clock, the machine or the order in which things were found: the same lock makes the same bytes.
"""

import datetime
import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_mapping
from onprem_llm.spec.fields import Model
from onprem_llm.weights.names import name_problem, name_problems

SCHEMA = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
LAYOUT, INDEX, VOLUME = "oci-layout", "index.json", "volume.json"
BLOBS = "blobs/sha256"

Sum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A blob that plays several parts has the first of these that fits.
Role = Literal[
    "install", "lock", "sbom", "licence", "packages-index", "package", "wheel", "image-manifest", "image-config",
    "image-layer", "weights",
]  # fmt: skip


class Part(Model):
    """A piece of a blob that is larger than a volume; pieces stand in their order."""

    sha256: Sum
    size: int = Field(gt=0)


class Blob(Model):
    """One artefact, stored once. `names` are what the views call it, for people and for messages.

    What is not carried is in the base.
    """

    sha256: Sum
    size: int = Field(ge=0)
    role: Role
    names: tuple[str, ...] = Field(min_length=1)
    carried: bool = True
    parts: tuple[Part, ...] = ()

    @field_validator("names")
    @classmethod
    def _printable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if problems := [f"{name!r} {why}" for name in value if (why := name_problem(name))]:
            raise ValueError(problems[0])
        return value

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

    path: str
    sha256: Sum


class RootFile(Model):
    """A small file at the root of the bundle."""

    name: str = Field(pattern=r"^(oci-layout|index\.json)$")
    sha256: Sum
    size: int = Field(ge=0)


class ImageView(Model):
    """An image: the name that the rendered plan uses, and the digest of its manifest for the lock's platform."""

    ref: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


def _one_folder(value: str) -> str:
    if "/" in value or value.startswith("."):
        raise ValueError(f"{value!r} is not the name of one folder")
    if problems := name_problems([value]):
        raise ValueError(problems[0])
    return value


def _inside(value: tuple[NamedFile, ...]) -> tuple[NamedFile, ...]:
    if problems := name_problems([file.path for file in value]):
        raise ValueError("; ".join(problems[:3]))
    return value


FolderName = Annotated[str, Field(min_length=1)]


class FolderView(Model):
    """A folder that load makes. `kind` says below which; packages have `Packages` among their files."""

    kind: Literal["weights", "packages", "wheels", "licences"]
    name: FolderName
    about: dict[str, str | tuple[str, ...] | None] = Field(default_factory=dict)
    files: tuple[NamedFile, ...]

    _name = field_validator("name")(_one_folder)
    _files = field_validator("files")(_inside)


class Volume(Model):
    """A folder for one medium, and the blobs and parts in it."""

    name: str = Field(pattern=r"^vol-[0-9]{3,}$")
    contents: tuple[Sum, ...]


class Manifest(Model):
    """All of a bundle."""

    schema_version: int = SCHEMA
    lock_sha256: Sum
    made_with: str
    platform: str
    expires: str | None = None
    base: Sum | None = None
    volume_size: int | None = None
    files: tuple[RootFile, ...]
    blobs: tuple[Blob, ...]
    images: tuple[ImageView, ...] = ()
    folders: tuple[FolderView, ...] = ()
    volumes: tuple[Volume, ...] = ()

    @field_validator("expires")
    @classmethod
    def _a_day(cls, value: str | None) -> str | None:
        if value is not None:
            datetime.date.fromisoformat(value)
        return value

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
    try:
        value = json.loads(data)
        schema = value.get("schema_version") if is_mapping(value) else None
        if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
            raise InvalidError(
                f"{where}: made by a newer onprem-llm (schema {schema}, this one knows {SCHEMA})",
                hint="update onprem-llm: a bundle carries the one that made it, see docs/bundle.md (install.sh)",
            )
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _damaged(where, f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(where, f"not JSON ({error})") from None
    if manifest.data() != data:
        raise _damaged(where, "its bytes are not the canonical ones")
    return manifest


def _damaged(where: str, why: str) -> InvalidError:
    return InvalidError(f"{where}: not the manifest of a bundle: {why}", hint="copy it again from where it was made")
