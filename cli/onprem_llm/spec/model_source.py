"""Where weights come from: a folder of this machine, or a model on a hub at a revision."""

import hashlib
import json
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, model_serializer, model_validator

from onprem_llm.errors import InvalidError
from onprem_llm.spec.fields import Model, Names

SourceName = Literal["path", "huggingface", "modelscope"]
HUBS = ("huggingface", "modelscope")

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ID = re.compile(rf"{_PART}(/{_PART})?")
# It becomes part of an address and of a file's name.
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,79}")
# Beside the folder of the weights, which has the model's name.
_MANIFEST = "manifest.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
# What both hubs call the branch that everybody gets.
_DEFAULT_REVISION = {"huggingface": "main", "modelscope": "master"}


class ModelSource(Model):
    """A folder (`path`), or a model on a hub (`id` at `revision`) with a choice among its files."""

    source: SourceName
    path: str = ""
    id: str = ""
    revision: str = ""
    include: Names = ()
    exclude: Names = ()
    allow: Names = ()

    @model_validator(mode="after")
    def _what_belongs_together(self) -> "ModelSource":
        problems = self._of_a_folder() if self.source == "path" else self._of_a_hub()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _of_a_folder(self) -> list[str]:
        strange = [name for name in ("id", "revision", "include", "exclude", "allow") if getattr(self, name)]
        problems = [f"{', '.join(strange)}: only for a hub, not for `source: path`"] if strange else []
        return problems if self.path else [*problems, "path is missing: add the folder of the weights"]

    def _of_a_hub(self) -> list[str]:
        problems = [f"path belongs to `source: path`, not to {self.source}"] if self.path else []
        if not self.id:
            problems.append("id is missing: add the model's name on the hub, as in Qwen/Qwen3-0.6B")
        elif not _ID.fullmatch(self.id) or ".." in self.id or "--" in self.id:
            problems.append(f"id: found {self.id!r}, expected a name on the hub such as Qwen/Qwen3-0.6B")
        elif self.source == "modelscope" and "/" not in self.id:
            problems.append(f"id: found {self.id!r}, expected owner/name such as Qwen/Qwen3-0.6B")
        elif self.name == _MANIFEST:
            problems.append(f"id: found {self.id!r}: {_MANIFEST} stands beside the weights in the store, and is ours")
        if self.revision and (not _REVISION.fullmatch(self.revision) or ".." in self.revision):
            problems.append(f"revision: found {self.revision!r}, expected a branch, a tag or a commit")
        return problems

    @model_serializer
    def _as_written(self) -> str | dict[str, object]:
        """A folder is written as its path alone, which is how the book has always kept it."""
        if self.source == "path":
            return self.path
        fields = ("source", "id", "revision", "include", "exclude", "allow")
        return {name: list(v) if isinstance(v, tuple) else v for name in fields if (v := getattr(self, name))}

    @property
    def on_hub(self) -> bool:
        """Tell whether the weights must be pulled before they can be deployed."""
        return self.source in HUBS

    @property
    def wanted_revision(self) -> str:
        """Return the revision, or the branch that the hub gives to everybody."""
        return self.revision or _DEFAULT_REVISION[self.source]

    @property
    def name(self) -> str:
        """Return the last part of the id: what the weights are called on the hosts."""
        return self.id.rpartition("/")[2]

    @property
    def selection(self) -> str:
        """Return what tells two choices of files apart: nothing for all of them, else 8 hex digits."""
        if not (self.include or self.exclude or self.allow):
            return ""
        parts = [sorted(set(names)) for names in (self.include, self.exclude, self.allow)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    def __str__(self) -> str:
        """Return it as `weights pull` takes it."""
        if not self.on_hub:
            return self.path
        return f"{self.source}:{self.id}{f'@{self.revision}' if self.revision else ''}"


def parse_source(
    text: str, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = (), allow: tuple[str, ...] = ()
) -> ModelSource:
    """Read `huggingface:Qwen/Qwen3-0.6B@main`; InvalidError says what is wrong with it."""
    source, _, rest = text.partition(":")
    identity, at, revision = rest.partition("@")
    try:
        if source not in HUBS or (at and not revision):
            raise ValueError("expected huggingface:ID[@REVISION] or modelscope:ID[@REVISION]")
        return ModelSource.model_validate({
            "source": source, "id": identity, "revision": revision,
            "include": include, "exclude": exclude, "allow": allow,
        })  # fmt: skip
    except ValueError as error:
        found = getattr(error, "errors", None)
        said = str(found()[0]["ctx"]["error"]) if found else str(error)
        raise InvalidError(f"{text}: {said}", hint="for example: huggingface:Qwen/Qwen3-0.6B@main") from None


def _source(value: object) -> object:
    if isinstance(value, str):
        if not value:
            raise ValueError("found an empty text, expected a folder of weights, or a mapping with `source`")
        return {"source": "path", "path": value}
    if not isinstance(value, dict | ModelSource):
        kind = {list: "a list", bool: "true or false", type(None): "nothing"}.get(type(value), f"{value}")
        raise ValueError(f"found {kind}, expected a folder (text) or a mapping with `source`")
    return value


# What stands under `model:`; text is a folder.
ModelField = Annotated[ModelSource, BeforeValidator(_source)]
