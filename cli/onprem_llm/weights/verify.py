"""Compare pulled weights with their manifest."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from onprem_llm.output import Progress
from onprem_llm.weights.jobs import Meter, run_all
from onprem_llm.weights.manifest import Manifest, ManifestFile
from onprem_llm.weights.sums import sums_of

NOTHING = "none"


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what the manifest says; an extra one has no expectation."""

    path: str
    found: str
    expected: str

    @property
    def extra(self) -> bool:
        """Tell whether it is a file that the manifest does not know, while all others may be as they were."""
        return self.expected == NOTHING


def look_over(folder: Path, manifest: Manifest) -> list[Damage]:
    """Compare names and sizes: what a cut, a deletion or a stray file changes. Reads no content."""
    damages = [damage for file in manifest.files if (damage := _place_damage(folder, file))]
    known = {folder / file.path for file in manifest.files}
    extra = sorted(path for path in folder.rglob("*") if (path.is_symlink() or not path.is_dir()) and path not in known)
    return damages + [Damage(path.relative_to(folder).as_posix(), "an extra file", NOTHING) for path in extra]


def read_over(folder: Path, manifest: Manifest, progress: Progress, label: str) -> list[Damage]:
    """Compare every byte, on all cores."""
    damages = look_over(folder, manifest)
    wrong = {damage.path for damage in damages}
    meter, adding = Meter(progress, label, manifest.bytes), Lock()

    def check(file: ManifestFile) -> None:
        sums = sums_of(folder / file.path)
        meter.moved(file.size)
        if sums.sha256 != file.sha256:
            chunk = next((i for i, (a, b) in enumerate(zip(sums.chunks, file.chunks, strict=False)) if a != b), 0)
            with adding:
                damages.append(Damage(file.path, f"sha256 {sums.sha256} (from chunk {chunk} on)", file.sha256))

    jobs = [functools.partial(check, file) for file in manifest.files if file.path not in wrong]
    run_all(jobs, os.cpu_count() or 1, Event())
    return sorted(damages, key=lambda damage: damage.path)


def _place_damage(folder: Path, file: ManifestFile) -> Damage | None:
    place = folder / file.path
    if place.is_symlink() or not place.is_file():
        return Damage(file.path, "a link" if place.is_symlink() else "nothing", "a file")
    size = place.stat().st_size
    return None if size == file.size else Damage(file.path, f"{size} bytes", f"{file.size} bytes")
