"""Bring again what a lock names and the cache of blobs lacks."""

from collections.abc import Callable, Mapping
from pathlib import Path

from onprem_llm.locking.archive_images import ArchiveImages
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.origins import Origins, origins_of
from onprem_llm.locking.packages import Packages
from onprem_llm.locking.registry_images import RegistryImages
from onprem_llm.locking.wheels import Wheels
from onprem_llm.output import Progress
from onprem_llm.spec.lock import Lock

Fetch = Callable[[Mapping[str, str], Progress], None]


def fetcher(lock: Lock, origins: Origins | None = None) -> Fetch:
    """Return what brings blobs of a lock into the cache: (sha256 -> what it is, progress) -> None.

    What cannot be had the same is left out; what cannot be asked for at all is an error. Weights are no blobs: they are
    in their store, or in their folder.
    """
    known = origins or origins_of(lock)
    blobs = Blobs()

    def fetch(missing: Mapping[str, str], progress: Progress) -> None:
        wanted = set(missing)
        _images(lock, wanted, known, blobs, progress)
        for release in lock.packages:
            files = [one for one in release.files if one.sha256 in wanted and not blobs.has(one.sha256, one.size)]
            if files:
                progress.step(f"Fetch {len(files)} packages of {release.os} {release.release}", [])
                Packages(known.mirrors, blobs, keys=known.keys).fetch(release, files)
        for wheels in lock.wheels:
            if any(one.sha256 in wanted and not blobs.has(one.sha256, one.size) for one in wheels.files):
                progress.step(f"Fetch wheels for Python {wheels.python}", [])
                Wheels(wheels.platform, blobs).fetch(wheels)

    return fetch


def _images(lock: Lock, wanted: set[str], origins: Origins, blobs: Blobs, progress: Progress) -> None:
    """Bring images whose manifest is missing, or one of whose blobs is."""
    registry = RegistryImages(lock.platform, origins.access, blobs)
    for image in lock.images:
        if not ({image.digest.removeprefix("sha256:"), *registry.blobs_of(image)} & wanted):
            continue
        progress.step(f"Fetch {image.ref}", [])
        archive = origins.archives.get(image.ref)
        if archive is not None and Path(archive).is_file():
            ArchiveImages(lock.platform, blobs).resolve(image.ref, Path(archive))
        else:
            registry.fetch(image)
