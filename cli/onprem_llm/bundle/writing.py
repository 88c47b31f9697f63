"""Write a bundle that has been described: into one folder, or into volumes."""

import functools
import os
import shutil
from pathlib import Path
from threading import Event

from onprem_llm.bundle.describe import Described, parts_of, volumes_of
from onprem_llm.bundle.files import free_bytes, refuse_large
from onprem_llm.bundle.layout import BEGUN, folder_of, volume_bytes, volume_folders, volume_names
from onprem_llm.bundle.manifest import BLOBS, MANIFEST, SIGNATURE, VOLUME, Manifest
from onprem_llm.bundle.place import can_link, is_there, place_data, place_file, sweep
from onprem_llm.bundle.split import split
from onprem_llm.bundle.volumes import Piece
from onprem_llm.bundle.wanted import Artefact
from onprem_llm.errors import InvalidError
from onprem_llm.output import Progress, human_bytes
from onprem_llm.weights.jobs import Job, Meter, run_all
from onprem_llm.weights.store import sync_folder
from onprem_llm.whole_files import write_whole


class Writer:
    """Writes one bundle; `placed` counts the bytes that were not there yet."""

    def __init__(self, folder: Path, described: Described, progress: Progress) -> None:
        """Nothing is written yet."""
        self.folder, self.described, self.progress = folder, described, progress
        self.carried = described.carried
        self.placed = 0

    def write(self) -> Manifest:
        """Write blobs, then the small files, then the manifest: in this order, so that half a bundle is none."""
        pieces = self.described.laid_out() if self.described.volume_size else [
            Piece(sha256, one.size, 0) for sha256, one in self.carried.items()
        ]  # fmt: skip
        total = sum(piece.size for piece in pieces)
        self.progress.step(f"Write {human_bytes(total)} to {self.folder}", [])
        self._budget(pieces)
        meter = Meter(self.progress, self.folder.name, total)
        sums = self._blobs(pieces, meter)
        volumes = volumes_of(pieces, sums) if self.described.volume_size else ()
        manifest = self.described.manifest(parts_of(pieces, sums), volumes)
        self._finish(manifest)
        return manifest

    def _place(self, piece: Piece) -> Path:
        volume = f"vol-{piece.volume + 1:03}" if self.described.volume_size else None
        return folder_of(self.folder, volume) / BLOBS

    def _budget(self, pieces: list[Piece]) -> None:
        """Refuse before anything is written where the disk is too small for what cannot be shared."""
        hint = "--volume-size 4GB splits what is larger; or format the disk with a file system that takes it"
        refuse_large(self.folder, [piece.size for piece in pieces], hint)
        device, links = self.folder.stat().st_dev, can_link(self.folder)
        need, whole = 0, {piece.sha256 for piece in pieces if piece.number is None}
        for piece in pieces:
            source = self.carried[piece.sha256].path
            shared = links and piece.number is None and source is not None and source.stat().st_dev == device
            if not shared and (piece.number is not None or not is_there(self._place(piece) / piece.sha256, piece.size)):
                need += piece.size
        if any(piece.number is not None for piece in pieces):
            # Parts of an earlier run have names that are not known yet.
            need -= sum(path.stat().st_size for path in self.folder.glob(f"vol-*/{BLOBS}/*") if path.name not in whole)
        free = free_bytes(self.folder)
        if need > free:
            raise InvalidError(
                f"{self.folder}: {human_bytes(need)} are to be written, and {human_bytes(free)} are free",
                hint="make room or name a larger disk with -o; what is there already stays, and is not written again",
            )

    def _blobs(self, pieces: list[Piece], meter: Meter) -> dict[tuple[str, int | None], str]:
        sums: dict[tuple[str, int | None], str] = {}
        cut: dict[str, list[Piece]] = {}
        jobs: list[tuple[int, Job]] = []
        for piece in pieces:
            self._place(piece).mkdir(parents=True, exist_ok=True)
            if piece.number is None:
                jobs.append((piece.size, functools.partial(self._put, piece, meter)))
            else:
                cut.setdefault(piece.sha256, []).append(piece)
        for sha256, of_one in cut.items():
            jobs.append((self.carried[sha256].size, functools.partial(self._cut, sha256, of_one, sums, meter)))
        # The largest first: none of them should be at work alone at the end.
        run_all([job for _, job in sorted(jobs, key=lambda one: -one[0])], os.cpu_count() or 1, Event())
        return sums

    def _put(self, piece: Piece, meter: Meter) -> None:
        artefact, target = self.carried[piece.sha256], self._place(piece) / piece.sha256
        if artefact.data is not None:
            new = place_data(artefact.data, target, artefact.sha256)
        else:
            source = _source(artefact)
            new = place_file(source.parent, source.name, target, (artefact.sha256, artefact.size), meter.moved)
        self.placed += artefact.size if new else 0

    def _cut(self, sha256: str, pieces: list[Piece], sums: dict[tuple[str, int | None], str], meter: Meter) -> None:
        found = split(_source(self.carried[sha256]), sha256, pieces, self.folder, meter.moved)
        sums.update({(sha256, number): part for number, part in found.items()})
        self.placed += self.carried[sha256].size

    def _finish(self, manifest: Manifest) -> None:
        data = manifest.data()
        names = volume_names(manifest)
        for name in names:
            place = folder_of(self.folder, name)
            known = next((set(v.contents) for v in manifest.volumes if v.name == name), set(self.carried))
            _sweep(place / BLOBS, known)
            for file, text in self.described.wanted.root.items():
                write_whole(place / file, text)
            if name:
                write_whole(place / VOLUME, volume_bytes(name))
            if (place / MANIFEST).exists() and (place / MANIFEST).read_bytes() != data:
                (place / SIGNATURE).unlink(missing_ok=True)
            sync_folder(place / BLOBS)
        for name in names:
            write_whole(folder_of(self.folder, name) / MANIFEST, data)
            sync_folder(folder_of(self.folder, name))
        for stale in volume_folders(self.folder):
            if names != [None] and stale.name not in names:
                shutil.rmtree(stale)
        for journal in self.folder.glob(".parts-*.jsonl"):
            journal.unlink()
        sweep(self.folder)
        (self.folder / BEGUN).unlink(missing_ok=True)


def _sweep(place: Path, known: set[str]) -> None:
    """Remove what an earlier run left: parts of blobs, blobs of another lock."""
    for path in place.iterdir():
        if path.name not in known:
            path.unlink()


def _source(artefact: Artefact) -> Path:
    if artefact.path is None:
        raise AssertionError("looked up before")
    return artefact.path
