"""onprem-llm.lock: everything that deployments need, by digest, commit, version and hash."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from onprem_llm.spec.canonical import (
    Digest,
    Hex256,
    Listed,
    Printable,
    SafeName,
    SafePath,
    Size,
    canonical,
    matching,
    no_key_twice,
    no_name_twice,
    parse_json,
    read_json,
)
from onprem_llm.spec.fields import Model
from onprem_llm.spec.model_source import COMMIT, SourceName
from onprem_llm.spec.problems import checked

SCHEMA = 1
FILE, WHAT = "onprem-llm.lock", "a lock of onprem-llm"
AGAIN = "make it with: onprem-llm lock MODEL_YAML --facts FACTS -o onprem-llm.lock"

Platform = Literal["linux/amd64", "linux/arm64"]
# Names of packages, versions, kernels: they become arguments of apt and parts of file names.
_WORD = r"[A-Za-z0-9][A-Za-z0-9.+:~_-]{0,127}"
Word = Annotated[str, matching(_WORD, "letters, digits and .+:~_- only")]
# rpm has ^ for what comes after a release.
Version = Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9.+:~^_-]{0,127}", "letters, digits and .+:~^_- only")]
MaybeWord = Annotated[str, matching(f"|{_WORD}", "letters, digits and .+:~_- only, or nothing")]


def _day(value: str) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError(f"found {value!r}, expected a day such as 2027-01-31") from None


def _ref(value: str) -> str:
    if not value or any(letter.isspace() or not letter.isprintable() for letter in value) or value.startswith("-"):
        raise ValueError(f"found {value!r}, expected an image such as vllm/vllm-openai:v0.11.0")
    return value


Day = Annotated[str, AfterValidator(_day)]


class LockedDeployment(Model):
    """A model.yaml, whole; `weights` is the name of its weights below."""

    name: Annotated[str, matching(r"[a-z0-9][a-z0-9-]{0,39}", "small letters, digits and -")]
    file: Annotated[SafeName, matching(r"(?s:.+)\.ya?ml", "a name that ends in .yaml")]
    sha256: Hex256
    text: str
    weights: SafeName

    @model_validator(mode="after")
    def _its_own_sum(self) -> "LockedDeployment":
        found = hashlib.sha256(self.text.encode()).hexdigest()
        if found != self.sha256:
            raise ValueError(f"its text has the sha256 {found}, expected {self.sha256}: the lock was edited")
        return self


class LockedImage(Model):
    """An image: the digest of its manifest for the lock's one platform, its configuration's, and its blobs' bytes."""

    ref: Annotated[str, AfterValidator(_ref)]
    digest: Digest
    id: Digest
    size: Size


class LockedFile(Model):
    """A file of weights."""

    path: SafePath
    size: Size
    sha256: Hex256


class LockedWeights(Model):
    """Weights at a commit of a hub, or of a folder (`path`, no commit); `name` is their folder's on the hosts."""

    source: SourceName
    id: Annotated[Printable, Field(min_length=1)]
    revision: Printable
    commit: Annotated[str, matching(COMMIT.pattern, "40 hex digits")] | None
    name: SafeName
    files: Listed[LockedFile]

    @model_validator(mode="after")
    def _whole(self) -> "LockedWeights":
        if (self.commit is None) != (self.source == "path"):
            raise ValueError(f"found commit {self.commit}: weights of a hub have one, those of a folder have none")
        no_name_twice([file.path for file in self.files])
        return self


class LockedPackage(Model):
    """A package's file, as a package manager names it."""

    name: Word
    version: Version
    architecture: Word
    filename: SafeName
    size: Size
    sha256: Hex256


class LockedPackages(Model):
    """Every package that bootstrap installs on hosts of one release, with its closure, for all their kernels."""

    os: Word
    release: Word
    codename: MaybeWord  # the RHEL family has none
    architecture: Word
    kernels: Listed[Word]
    files: Listed[LockedPackage]

    @model_validator(mode="after")
    def _once(self) -> "LockedPackages":
        no_name_twice([file.filename for file in self.files])
        # rpm has kernels' headers side by side, all under one name.
        no_key_twice("a package", [_key_of(file) for file in self.files])
        return self


def _key_of(package: LockedPackage) -> str:
    name = f"{package.name}:{package.architecture}"
    return f"{name} {package.version}" if package.filename.endswith(".rpm") else name


class LockedWheel(Model):
    """A wheel."""

    filename: SafeName
    size: Size
    sha256: Hex256


class LockedWheels(Model):
    """onprem-llm itself and its closure, for one Python of the control host."""

    python: Annotated[str, matching(r"3\.[0-9]{1,2}", "a version such as 3.11")]
    platform: Platform
    files: Listed[LockedWheel]

    @model_validator(mode="after")
    def _once(self) -> "LockedWheels":
        no_name_twice([file.filename for file in self.files])
        return self


class Lock(Model):
    """The whole lock. Nothing of the hour or the machine is in it but what was asked."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA)] = SCHEMA
    onprem_llm: Word
    platform: Platform
    expires: Day | None = None
    deployments: Listed[LockedDeployment]
    site: dict[str, object] = Field(default_factory=dict)
    images: Listed[LockedImage]
    weights: Listed[LockedWeights]
    packages: Listed[LockedPackages]
    wheels: Listed[LockedWheels]

    @model_validator(mode="after")
    def _whole(self) -> "Lock":
        no_key_twice("a deployment", [one.name for one in self.deployments])
        no_name_twice([one.file for one in self.deployments])
        no_key_twice("an image", [one.ref for one in self.images])
        no_key_twice("weights", [one.name for one in self.weights])
        no_key_twice("packages", [f"{one.os} {one.release} {one.architecture}" for one in self.packages])
        no_key_twice("wheels", [one.python for one in self.wheels])
        known = {one.name for one in self.weights}
        lost = [f"{one.name}: {one.weights}" for one in self.deployments if one.weights not in known]
        if lost:
            raise ValueError(f"deployments name weights that are not in the lock: {', '.join(lost)}")
        return self

    @property
    def data(self) -> bytes:
        """Return the file's bytes; the same lock always gives the same."""
        return canonical(self.model_dump(mode="json"))

    def deployment(self, name: str) -> LockedDeployment | None:
        """Find a deployment by its name."""
        return next((one for one in self.deployments if one.name == name), None)

    def image(self, ref: str) -> LockedImage | None:
        """Find an image by what model.yaml or the site calls it."""
        return next((one for one in self.images if one.ref == ref), None)

    def weights_named(self, name: str) -> LockedWeights | None:
        """Find weights by the name of their folder on the hosts."""
        return next((one for one in self.weights if one.name == name), None)


def read_lock(path: Path) -> Lock:
    """Read a lock; InvalidError shows every problem with its path in the file."""
    value = read_json(path, what=WHAT, schema=SCHEMA, again=AGAIN)
    return checked(Lock, value, where=str(path))


def parse_lock(data: bytes, where: str, *, again: str, newer: str) -> Lock:
    """Check the bytes of a lock that was brought here; the hints say how a good one, or a newer tool, is had."""
    value = parse_json(data, where, what=WHAT, schema=SCHEMA, again=again, newer=newer)
    return checked(Lock, value, where=where, hint=again)


def lock_sha256(path: Path) -> str:
    """Return the sha256 of a lock's file: what a bundle says it was made from."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
