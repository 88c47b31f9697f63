"""have.json: what a site has already, so that the next bundle can leave it out."""

from pathlib import Path

from onprem_llm.bundle.manifest import Manifest
from onprem_llm.spec.canonical import Hex256, Size, canonical, read_json
from onprem_llm.spec.fields import Model
from onprem_llm.spec.problems import checked

SCHEMA = 1
_AGAIN = "export it on site: onprem-llm bundle have SITE_FOLDER -o have.json"


class Have(Model):
    """The bundle that a site loaded last, and the sizes of its blobs by sha256."""

    schema_version: int = SCHEMA
    base: Hex256
    blobs: dict[Hex256, Size]

    def data(self) -> bytes:
        """Return the file's bytes."""
        return canonical(self.model_dump(mode="json"))


def have_of(manifest: Manifest) -> Have:
    """Say what a bundle brings, its base included."""
    return Have(base=manifest.sha256, blobs={blob.sha256: blob.size for blob in manifest.blobs})


def read_have(path: Path) -> Have:
    """Read have.json; InvalidError where it is damaged, or a newer tool wrote it."""
    value = read_json(path, what="what a site has (have.json)", schema=SCHEMA, again=_AGAIN)
    return checked(Have, value, where=str(path), hint=_AGAIN)
