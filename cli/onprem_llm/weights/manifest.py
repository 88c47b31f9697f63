"""Our own manifest of pulled weights: what each file is, where it came from, and what proves it."""

import contextlib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from onprem_llm.errors import OnpremError
from onprem_llm.spec.fields import Model
from onprem_llm.spec.model_source import COMMIT
from onprem_llm.weights.names import name_problems
from onprem_llm.weights.sums import CHUNK

SCHEMA = 1
Checked = Literal["sha256", "git-sha1", "size"]


class ManifestFile(Model):
    """A file below the weights' folder. `checked` is the hub's own hash that it was compared with."""

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    chunks: tuple[str, ...]
    checked: Checked


class Manifest(Model):
    """All files of one pull. Nothing in it depends on the machine or the hour: the same pull writes the same bytes."""

    schema_version: int = SCHEMA
    source: Literal["huggingface", "modelscope"]
    id: str
    commit: str
    # Whether the hub has such commits, or ours stands for the listing.
    commit_is: Literal["commit", "listing"]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    chunk_size: int = CHUNK
    files: tuple[ManifestFile, ...]

    @field_validator("commit")
    @classmethod
    def _a_commit(cls, value: str) -> str:
        if not COMMIT.fullmatch(value):
            raise ValueError(f"found {value!r}, expected 40 hex digits")
        return value

    @field_validator("files")
    @classmethod
    def _inside(cls, value: tuple[ManifestFile, ...]) -> tuple[ManifestFile, ...]:
        problems = name_problems([file.path for file in value])
        if problems:
            raise ValueError("; ".join(problems[:3]))
        return value

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    def write(self, path: Path) -> None:
        """Write it whole or not at all, and to the disk."""
        partial = path.with_name(path.name + ".new")
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(self.model_dump_json(indent=1) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; OnpremError where it is damaged or newer than this tool."""
    try:
        text = path.read_text(encoding="utf-8")
        manifest = Manifest.model_validate_json(text)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        newer = _newer(error)
        raise OnpremError(
            f"{path}: {'made by a newer onprem-llm' if newer else 'not a whole manifest of weights'}",
            hint="update onprem-llm" if newer else f"remove {path.parent} and pull the weights again",
        ) from None
    if manifest.schema_version != SCHEMA:
        raise OnpremError(
            f"{path}: schema {manifest.schema_version}, this onprem-llm knows {SCHEMA}", hint="update onprem-llm"
        )
    return manifest


def read_lines(path: Path) -> list[ManifestFile]:
    """Read what a pull that is not at its end has verified, a line each; one that a kill cut short is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for text in lines:
        with contextlib.suppress(ValueError):
            found.append(ManifestFile.model_validate_json(text))
    return [line for line in found if not name_problems([line.path])]


def _newer(error: Exception) -> bool:
    """A newer schema may have fields that are unknown here."""
    kinds = [item["type"] for item in error.errors()] if isinstance(error, ValidationError) else []
    return bool(kinds) and all(kind == "extra_forbidden" for kind in kinds)
