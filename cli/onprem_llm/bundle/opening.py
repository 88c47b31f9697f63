"""Open a bundle: who signed it, whether it is still good, which of its volumes are here. No blob is read."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.bundle.files import read_small
from onprem_llm.bundle.layout import BEGUN, volume_folders
from onprem_llm.bundle.manifest import MANIFEST, SIGNATURE, VOLUME, Manifest, read_manifest
from onprem_llm.bundle.signing import BUNDLE, Signer, verify
from onprem_llm.bundle.site_folder import BUNDLES, SiteFolder, is_site
from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.json_values import is_mapping


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle whose manifest was read (and whose signature is good, if there is a signer), and its folders here.

    `folders` has one folder a volume; that of a bundle without volumes has the name None.
    """

    manifest: Manifest
    sha256: str
    signature: bytes
    signer: Signer | None
    folders: dict[str | None, Path]
    # It was loaded: the folder is the site's, which has the base's blobs too, and small files of its own.
    loaded: bool = False

    @property
    def kind(self) -> str:
        """Say what was opened, for reports: a bundle, or a site's folder, which may be of an expired one."""
        return "site" if self.loaded else "bundle"

    @property
    def expired(self) -> bool:
        """Tell whether its last day (UTC) is over."""
        expires = self.manifest.expires
        return bool(expires and datetime.date.fromisoformat(expires) < _today())

    @property
    def absent(self) -> list[str]:
        """Name the volumes that are not here."""
        return [volume.name for volume in self.manifest.volumes if volume.name not in self.folders]


def open_bundle(paths: Sequence[Path], allowed: Path | None) -> Opened:
    """Open a bundle's folder or volumes; InvalidError unless a key of `allowed` signed it (None: do not ask).

    A folder that holds volumes must hold all of them; volumes that are named one by one need not be all.
    """
    if any(is_site(path) for path in paths):
        return _of_site(paths, allowed)
    places = [place for path in paths for place in _places(path)]
    data = read_small(places[0], MANIFEST)
    signer, signature = None, b""
    for place in places:
        if read_small(place, MANIFEST) != data:
            raise InvalidError(
                f"{place} and {places[0]}: of different bundles",
                hint="name volumes of one bundle: onprem-llm bundle inspect",
            )
        if allowed is not None:
            signer, signature = verify(data, place / SIGNATURE, allowed, BUNDLE, str(place / MANIFEST))
    manifest = read_manifest(data, str(places[0] / MANIFEST))
    opened = Opened(manifest, manifest.sha256, signature, signer, _folders(manifest, places))
    if allowed is not None:
        _not_expired(opened)
    if opened.absent and any(not (path / MANIFEST).exists() for path in paths):
        raise InvalidError(
            f"{paths[0]}: volumes are missing: {', '.join(opened.absent)}",
            hint="bring them, or name the volumes that are here one by one: vol-001 vol-003 …",
        )
    return opened


def _of_site(paths: Sequence[Path], allowed: Path | None) -> Opened:
    """Open what a site's folder holds: the bundle that was loaded last. That it has expired since does not matter."""
    if len(paths) > 1:
        raise UsageError(f"{paths[0]} and {paths[1]}: one of them is a site's folder", hint="name it alone")
    site = SiteFolder(paths[0])
    last = site.have().base
    name = f"{BUNDLES}/{last}.json"
    data = read_small(site.root, name)
    signer, signature = None, b""
    if allowed is not None:
        where = site.root / f"{name}.sig"
        signer, signature = verify(data, where, allowed, BUNDLE, str(site.root / name))
    manifest = read_manifest(data, str(site.root / name))
    return Opened(manifest, manifest.sha256, signature, signer, {None: site.root}, loaded=True)


def _places(path: Path) -> list[Path]:
    if not path.is_dir():
        raise InvalidError(f"{path}: no folder, expected that of a bundle", hint="onprem-llm bundle create --help")
    if (path / MANIFEST).exists() or (path / MANIFEST).is_symlink():
        return [path]
    volumes = [place for place in volume_folders(path) if (place / MANIFEST).exists()]
    if volumes:
        return volumes
    begun = (path / BEGUN).exists()
    raise InvalidError(
        f"{path}: "
        + ("its creation was cut off: this is no bundle yet" if begun else f"no bundle: it has no {MANIFEST}"),
        hint="run the same `onprem-llm bundle create` again: it goes on from there" if begun else "name its folder",
    )


def _folders(manifest: Manifest, places: Sequence[Path]) -> dict[str | None, Path]:
    if not manifest.volumes:
        return {None: places[0]}
    known = {volume.name for volume in manifest.volumes}
    found: dict[str | None, Path] = {}
    for place in places:
        try:
            value = json.loads(read_small(place, VOLUME, 4096))
        except (OSError, ValueError):
            value = None
        name = value.get("volume") if is_mapping(value) else None
        if not isinstance(name, str) or name not in known:
            raise InvalidError(f"{place / VOLUME}: found no volume of this bundle", hint="copy the volume again")
        found[name] = place
    return found


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _not_expired(opened: Opened) -> None:
    if opened.expired:
        raise InvalidError(
            f"{next(iter(opened.folders.values()))}: expired: it was good until {opened.manifest.expires}, "
            f"and today is {_today()} (UTC)",
            hint="get a newer bundle; where this machine's clock is wrong, mend it",
        )
