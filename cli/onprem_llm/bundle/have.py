"""have.json: what a site has already, so that the next bundle can leave it out."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from onprem_llm.bundle.manifest import Manifest, Sum
from onprem_llm.errors import InvalidError
from onprem_llm.spec.canonical import canonical, read_json
from onprem_llm.spec.fields import Model

SCHEMA = 1
_AGAIN = "export it on site: onprem-llm bundle have SITE_FOLDER -o have.json"


class Have(Model):
    """The bundle that a site loaded last, and the sizes of its blobs by sha256."""

    schema_version: int = SCHEMA
    base: Sum
    blobs: dict[Sum, Annotated[int, Field(ge=0)]]

    def data(self) -> bytes:
        """Return the file's bytes."""
        return canonical(self.model_dump(mode="json"))


def have_of(manifest: Manifest) -> Have:
    """Say what a bundle brings, its base included."""
    return Have(base=manifest.sha256, blobs={blob.sha256: blob.size for blob in manifest.blobs})


def read_have(path: Path) -> Have:
    """Read have.json; InvalidError where it is damaged, or a newer tool wrote it."""
    value = read_json(path, what="what a site has (have.json)", schema=SCHEMA, again=_AGAIN)
    try:
        return Have.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidError(f"{path}: {place}: {first['msg']}", hint=_AGAIN) from None
