"""`bundle load`: from a bundle's folder or volumes into the site's folder, each byte verified on the way."""

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from onprem_llm.bundle.assemble import Assembly
from onprem_llm.bundle.files import disk_trouble, free_bytes, is_ours, read_small, refuse_large
from onprem_llm.bundle.fitting import lock_of, made_for
from onprem_llm.bundle.manifest import BLOBS, INDEX, Blob, Manifest
from onprem_llm.bundle.opening import Opened
from onprem_llm.bundle.place import can_clone, can_link, is_there, place_file, sweep
from onprem_llm.bundle.registry_view import blob_path
from onprem_llm.bundle.site_folder import LOCK, SiteFolder
from onprem_llm.bundle.top_files import REGISTRY, write_top
from onprem_llm.bundle.views import copied_bytes, folder_of_view, is_made, make_view
from onprem_llm.errors import InvalidError, OnpremError, UsageError
from onprem_llm.output import Progress, human_bytes
from onprem_llm.package_signing import sign_repository
from onprem_llm.spec.facts import Facts
from onprem_llm.weights.jobs import Job, Meter, run_all
from onprem_llm.weights.lock import held
from onprem_llm.weights.store import sync_folder

# The folder that it is in, a blob or a numbered part of one, and its bytes.
Piece = tuple[Path, Blob | tuple[Assembly, int], int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of a load: bytes and files that were new, and were verified; volumes that are still to come."""

    placed: int
    files: int
    absent: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Tell whether the views are made."""
        return not self.absent


def load(opened: Opened, root: Path, progress: Progress, facts: Facts | None = None) -> Loaded:
    """Load what is here of a bundle; a second run reads little. Nothing is touched where its base is missing.

    With `facts` of the hosts: nor where they are not what the lock was made for.
    """
    if opened.loaded:
        raise UsageError(f"{next(iter(opened.folders.values()))}: is a site's folder, no bundle", hint="name a bundle")
    site = SiteFolder(root)
    lock = lock_of(opened)
    if facts is not None:
        made_for(opened, lock, facts)
    root.mkdir(parents=True, exist_ok=True)
    with held(root / LOCK, str(root)), disk_trouble(root, "loading"):
        _base_is_here(site, opened.manifest)
        site.prepare()
        return _Loading(site, opened, progress).run()


def _base_is_here(site: SiteFolder, manifest: Manifest) -> None:
    if manifest.base is None:
        return
    hint = "load the base first; or make a bundle without --have, or with a have.json of this site"
    if manifest.base not in site.state().loaded:
        raise InvalidError(
            f"{site.root}: the bundle adds to another one, {manifest.base}, which was not loaded here", hint=hint
        )
    absent = [blob for blob in manifest.blobs if not blob.carried]
    lacks = set(site.lacks([(blob.sha256, blob.size) for blob in absent]))
    if lacks:
        names = [f"  {blob.label} ({blob.sha256})" for blob in absent if blob.sha256 in lacks]
        raise InvalidError(
            f"{site.root}: {len(lacks)} files of the base {manifest.base[:12]} are gone", details="\n".join(names[:8]),
            hint=hint,
        )  # fmt: skip


class _Loading:
    """One load."""

    def __init__(self, site: SiteFolder, opened: Opened, progress: Progress) -> None:
        self.site, self.opened, self.progress = site, opened, progress
        self.manifest = opened.manifest
        self.sizes = {blob.sha256: blob.size for blob in self.manifest.blobs}
        self.links = can_link(site.root)
        self.placed = 0
        self.files = 0
        self.counting = Lock()

    def run(self) -> Loaded:
        """Bring blobs, then make the views if all are there."""
        # A second load comes by here too: each part looks whether it is as it should be, and leaves it then.
        index, todo = self._index(), self._todo()
        self._budget(todo)
        total = sum(size for _, _, size in todo)
        self.progress.step(f"Load {human_bytes(total)} into {self.site.root}", [])
        self._bring(todo, Meter(self.progress, self.site.root.name, total))
        absent = self._absent()
        if not absent:
            self._views()
            write_top(self.site, self.manifest, index, self.progress, links=self.links)
            sweep(self.site.blobs)
            self.site.record(self.manifest, self.opened.sha256, self.opened.signature)
        return Loaded(self.placed, self.files, absent)

    def _todo(self) -> Sequence[Piece]:
        """Return what the folders that are here bring: whole blobs, and parts."""
        found: list[Piece] = []
        contents = {volume.name: set(volume.contents) for volume in self.manifest.volumes}
        for name, place in self.opened.folders.items():
            here = contents.get(name or "")
            for blob in self.manifest.carried:
                if blob.parts:
                    assembly = Assembly(self.site.blobs, blob)
                    found += [
                        (place, (assembly, number), part.size)
                        for number, part in enumerate(blob.parts)
                        if here is not None and part.sha256 in here
                    ]
                elif here is None or blob.sha256 in here:
                    found.append((place, blob, blob.size))
        return found

    def _budget(self, todo: Sequence[Piece]) -> None:
        refuse_large(self.site.blobs, list(self.sizes.values()), "name a folder on another file system with --to")
        root, clones, need = self.site.root, can_clone(self.site.root), 0
        for place, what, size in todo:
            if isinstance(what, Blob):
                there = is_there(self.site.blobs / what.sha256, size)
                need += 0 if there or self._is_shared(place / BLOBS / what.sha256, clones) else size
            else:
                need += 0 if what[1] in what[0].present() else size
        views = 0 if self.links else copied_bytes(self.manifest, root, self.sizes) + self._image_bytes()
        free = free_bytes(root)
        if need + views > free:
            copies = f", {human_bytes(views)} of it copies: this file system has no hard links" if views else ""
            raise InvalidError(
                f"{root}: {human_bytes(need + views)} are needed{copies}, and {human_bytes(free)} are free",
                hint="make room, or name a folder on a larger disk with --to; what has come stays",
            )

    def _is_shared(self, source: Path, clones: bool) -> bool:
        """Tell whether a blob will take no room of its own."""
        try:
            state = source.lstat()
        except OSError:  # said when it is read
            return False
        return state.st_dev == self.site.root.stat().st_dev and (clones or (self.links and is_ours(state)))

    def _image_bytes(self) -> int:
        """Return what the registry's copies of images that are not there take, where it can have no links."""
        registry = self.site.root / REGISTRY
        return sum(
            blob.size
            for blob in self.manifest.blobs
            if blob.role.startswith("image-") and not is_there(registry / blob_path(blob.sha256), blob.size)
        )

    def _bring(self, todo: Sequence[Piece], meter: Meter) -> None:
        jobs: list[tuple[int, Job]] = []
        cut: dict[str, list[tuple[Path, Assembly, int]]] = {}
        for place, what, size in todo:
            if isinstance(what, Blob):
                jobs.append((size, functools.partial(self._blob, place, what, meter)))
            else:
                cut.setdefault(what[0].blob.sha256, []).append((place, *what))
        jobs += [(one[0][1].blob.size, functools.partial(self._parts, one, meter)) for one in cut.values()]
        run_all([job for _, job in sorted(jobs, key=lambda one: -one[0])], os.cpu_count() or 1, Event())
        # A kill may have come between a blob's last part and its name.
        for blob in self.manifest.carried:
            if blob.parts:
                Assembly(self.site.blobs, blob).finish(lambda _: None)
        sync_folder(self.site.blobs)

    def _blob(self, place: Path, blob: Blob, meter: Meter) -> None:
        target = self.site.blobs / blob.sha256
        name, expected = f"{BLOBS}/{blob.sha256}", (blob.sha256, blob.size)
        # Whoever brought the bundle must have no hand in what was verified.
        if place_file(place, name, target, expected, meter.moved, blob.label, ours_alone=True):
            self._count(blob.size)

    def _count(self, size: int) -> None:
        with self.counting:
            self.placed += size
            self.files += 1

    def _parts(self, parts: list[tuple[Path, Assembly, int]], meter: Meter) -> None:
        for place, assembly, number in parts:
            if assembly.add(number, place, meter.moved):
                self._count(assembly.blob.parts[number].size)
        parts[0][1].finish(lambda _: None)

    def _absent(self) -> tuple[str, ...]:
        """Name the volumes that hold what is not here yet."""
        whole = {blob.sha256 for blob in self.manifest.carried if not blob.parts}
        lacks = set(self.site.lacks([(sha, self.sizes[sha]) for sha in whole]))
        for blob in self.manifest.carried:
            present = Assembly(self.site.blobs, blob).present() if blob.parts else set()
            lacks |= {part.sha256 for number, part in enumerate(blob.parts) if number not in present}
        return tuple(volume.name for volume in self.manifest.volumes if lacks & set(volume.contents))

    def _views(self) -> None:
        made = [view for view in self.manifest.folders if not is_made(self.site.root, view, self.sizes, self.links)]
        if made:
            self.progress.step("Make folders of weights, packages and wheels", [])
        for view in made:
            make_view(self.site.root, view, self.sizes, self.site.blobs)
        for view in self.manifest.folders:
            if view.kind == "packages":
                sign_repository(folder_of_view(self.site.root, view), self.site.root)

    def _index(self) -> bytes:
        place = next(iter(self.opened.folders.values()))
        data = read_small(place, INDEX)
        found, expected = hashlib.sha256(data).hexdigest(), {f.name: f.sha256 for f in self.manifest.files}[INDEX]
        if found != expected:
            raise OnpremError(
                f"{place / INDEX}: found sha256 {found}, expected {expected}",
                hint="copy it again from where it was made",
            )
        return data
