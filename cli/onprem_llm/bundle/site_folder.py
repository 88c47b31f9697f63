"""The folder on site that bundles are loaded into: a store of blobs, what was loaded, and views made from the blobs."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.bundle.have import Have
from onprem_llm.bundle.manifest import BLOBS, MANIFEST, Manifest, read_manifest
from onprem_llm.bundle.place import is_there
from onprem_llm.errors import InvalidError, RefusedError
from onprem_llm.spec.canonical import Hex256, Listed, canonical, read_json
from onprem_llm.spec.fields import Model
from onprem_llm.spec.problems import checked
from onprem_llm.whole_files import write_whole

SCHEMA = 1
STATE = "site.json"
BUNDLES = "bundles"
REPORTS = "reports"
LOCK = ".lock"


class SiteState(Model):
    """Bundles that were loaded whole, in this order; the last one is what counts."""

    schema_version: int = SCHEMA
    loaded: Listed[Hex256] = ()


@dataclass(frozen=True, slots=True)
class SiteFolder:
    """A site's folder."""

    root: Path

    @property
    def blobs(self) -> Path:
        """Where blobs are."""
        return self.root / BLOBS

    def prepare(self) -> None:
        """Make the folder ours; RefusedError where it is somebody else's."""
        there = sorted(path.name for path in self.root.iterdir()) if self.root.exists() else []
        strange = [name for name in there if name not in {"lost+found", LOCK}]
        if strange and not (self.root / STATE).is_file():
            raise RefusedError(
                f"{self.root}: is not empty ({strange[0]}), and no site's folder", hint="name an empty folder with --to"
            )
        self.blobs.mkdir(parents=True, exist_ok=True)
        if not (self.root / STATE).is_file():
            self._write(SiteState())

    def state(self) -> SiteState:
        """Read what was loaded."""
        path = self.root / STATE
        if not path.exists():
            return SiteState()
        again = "load the bundles into a new folder"
        value = read_json(path, what="a site's state", schema=SCHEMA, again=again)
        return checked(SiteState, value, where=str(path), hint=again)

    def manifest(self, sha256: str) -> Manifest | None:
        """Return the manifest of a bundle that was loaded, or begun."""
        path = self.root / BUNDLES / f"{sha256}.json"
        return read_manifest(path.read_bytes(), str(path)) if path.is_file() else None

    def record(self, manifest: Manifest, sha256: str, signature: bytes) -> None:
        """Keep a bundle's manifest, and that it is what counts now."""
        place = self.root / BUNDLES
        write_whole(place / f"{sha256}.json.sig", signature)
        write_whole(place / f"{sha256}.json", manifest.data())
        earlier = tuple(one for one in self.state().loaded if one != sha256)
        self._write(SiteState(loaded=(*earlier, sha256)))

    def lacks(self, blobs: Sequence[tuple[str, int]]) -> list[str]:
        """Return those of the blobs (sha256 and size) that are not here."""
        return [sha256 for sha256, size in blobs if not is_there(self.blobs / sha256, size)]

    def have(self) -> Have:
        """Say what is here, for the next bundle; InvalidError where nothing was loaded."""
        loaded = self.state().loaded
        if not loaded:
            raise InvalidError(f"{self.root}: nothing was loaded yet", hint="onprem-llm bundle load --help")
        sizes: dict[str, int] = {}
        for sha256 in loaded:
            if (manifest := self.manifest(sha256)) is not None:
                sizes.update({blob.sha256: blob.size for blob in manifest.blobs})
        absent = set(self.lacks(list(sizes.items())))
        return Have(base=loaded[-1], blobs={sha: size for sha, size in sizes.items() if sha not in absent})

    def _write(self, state: SiteState) -> None:
        write_whole(self.root / STATE, canonical(state.model_dump(mode="json")))


def is_site(folder: Path) -> bool:
    """Tell a site's folder from a bundle.

    Nobody signs site.json: whoever adds one to a bundle must not spare it what is asked of bundles.
    """
    with contextlib.suppress(OSError):
        carried = os.path.lexists(folder / MANIFEST) or any(folder.glob("vol-*"))
        return (folder / STATE).is_file() and not carried
    return False
