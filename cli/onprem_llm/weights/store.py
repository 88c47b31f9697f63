"""The store of pulled weights: STORE/<hub>/<owner--name>/<commit>[-<selection>]/{manifest.json,<name>/…}.

What has this name is whole and was verified. What is being pulled is called `….partial`, its lock `….lock`; `refs`
remembers which commit a revision was when it was last pulled.
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.caches import cache_folder
from onprem_llm.errors import OnpremError
from onprem_llm.spec.model_source import COMMIT, HUBS, ModelSource
from onprem_llm.weights.manifest import Manifest, ManifestFile, read_lines, read_manifest

VARIABLE = "ONPREM_LLM_WEIGHTS"
MANIFEST = "manifest.json"
PARTIAL = ".partial"
# In a partial pull: bytes as they come, and a line for each file that is verified.
INCOMING = ".incoming"
JOURNAL = ".verified.jsonl"
LEAVING = ".removed"
# A commit, and what tells a choice of its files from all of them.
_ENTRY = re.compile(r"[0-9a-f]{40}(-[0-9a-f]{8})?")


def store_folder(named: Path | None = None) -> Path:
    """Return the folder that was named, else $ONPREM_LLM_WEIGHTS, else `weights` in the cache folder."""
    if named is None:
        variable = os.environ.get(VARIABLE)
        named = Path(variable) if variable else cache_folder() / "weights"
    return named.expanduser().absolute()


@dataclass(frozen=True, slots=True)
class Entry:
    """One pull's place: whole weights, or what there is of them so far."""

    folder: Path

    @property
    def partial(self) -> Path:
        """Where files arrive."""
        return self.folder.with_name(self.folder.name + PARTIAL)

    @property
    def lock(self) -> Path:
        """Who pulls holds this."""
        return self.folder.with_name(self.folder.name + ".lock")

    @property
    def manifest_path(self) -> Path:
        """Our manifest; it is written before the folder gets its name."""
        return self.folder / MANIFEST

    @property
    def complete(self) -> bool:
        """Tell whether it has been pulled to its end."""
        return self.manifest_path.is_file()

    @property
    def model(self) -> str:
        """Name it for people: huggingface:owner/name."""
        return f"{self.folder.parent.parent.name}:{self.folder.parent.name.replace('--', '/', 1)}"

    @property
    def commit(self) -> str:
        """Return the commit, as its folder says."""
        return self.folder.name[:40]

    def manifest(self) -> Manifest:
        """Read its manifest."""
        return read_manifest(self.manifest_path)

    def arrived(self) -> list[ManifestFile]:
        """Return what a pull that is not at its end has verified."""
        return read_lines(self.partial / JOURNAL)

    def weights(self) -> Path:
        """Return the folder of the files; its name is the model's, which names the weights on the hosts."""
        return self.folder / self.folder.parent.name.rpartition("--")[2]


class Store:
    """Pulled weights of this machine."""

    def __init__(self, root: Path) -> None:
        """Nothing is made until something is pulled."""
        self.root = root

    @property
    def clients(self) -> Path:
        """Where the hubs' client packages may write."""
        return self.root / ".clients"

    def entry(self, source: ModelSource, commit: str) -> Entry:
        """Return the place of a model at a commit, with the source's choice of files."""
        choice = f"-{source.selection}" if source.selection else ""
        return Entry(self._model(source) / f"{commit}{choice}")

    def remember(self, source: ModelSource, commit: str) -> None:
        """Write down which commit the revision is."""
        path = self._ref(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(commit + "\n", encoding="utf-8")
        partial.replace(path)

    def find(self, source: ModelSource) -> Entry | None:
        """Return the whole weights of a source: the commit that it names, or its revision's when last pulled."""
        named = [source.wanted_revision] if COMMIT.fullmatch(source.wanted_revision) else []
        ref = self._ref(source)
        if ref.is_file():
            named.append(ref.read_text(encoding="utf-8").strip())
        entries = [self.entry(source, commit) for commit in named if COMMIT.fullmatch(commit)]
        return next((entry for entry in entries if entry.complete), None)

    def entries(self) -> Iterator[Entry]:
        """Yield everything that is there, whole or partial, sorted by name."""
        for hub in HUBS:
            for model in sorted(path for path in (self.root / hub).glob("*") if path.is_dir()):
                names = {path.name.removesuffix(PARTIAL) for path in model.iterdir() if path.is_dir()}
                yield from (Entry(model / name) for name in sorted(names) if _ENTRY.fullmatch(name))

    def of_model(self, source: ModelSource) -> list[Entry]:
        """Return every pull of a model that is here, whole or partial."""
        return [entry for entry in self.entries() if entry.folder.parent == self._model(source)]

    def files_of(self, source: ModelSource) -> dict[str, Path]:
        """Return the verified files of every commit of a model that is here, by their sha256."""
        found: dict[str, Path] = {}
        for entry in self.of_model(source):
            found.update({line.sha256: entry.partial / source.name / line.path for line in entry.arrived()})
            # One whose manifest is damaged is told by `weights list`; it must not stop the pull of another.
            with contextlib.suppress(OnpremError):
                found.update({file.sha256: entry.weights() / file.path for file in entry.manifest().files})
        return found

    def refs(self, entry: Entry) -> list[Path]:
        """Return the files that say of a revision that it is this commit, with this choice of files."""
        return [
            path
            for path in sorted((entry.folder.parent / "refs").glob("*"))
            if path.name.partition("=")[2] == entry.folder.name[41:]
            and path.read_text(encoding="utf-8").strip() == entry.commit
        ]

    def revisions(self, entry: Entry) -> list[str]:
        """Name the revisions that were this commit when they were last pulled."""
        return [path.name.partition("=")[0].replace("%2F", "/") for path in self.refs(entry)]

    def half_removed(self) -> Iterator[tuple[Path, Entry]]:
        """Yield folders whose removal was cut off, and whose they were."""
        for path in sorted(self.root.glob(f"*/*/*{LEAVING}")):
            if path.is_dir():
                yield path, Entry(path.with_name(path.name.partition(".")[0]))

    def _model(self, source: ModelSource) -> Path:
        return self.root / source.source / source.id.replace("/", "--")

    def _ref(self, source: ModelSource) -> Path:
        # No revision has a = in it.
        choice = f"={source.selection}" if source.selection else ""
        return self._model(source) / "refs" / f"{source.wanted_revision.replace('/', '%2F')}{choice}"


def size_on_disk(*folders: Path) -> int:
    """Return the bytes of the files below folders; one that several commits share counts once."""
    return sum(state.st_size for state, _ in _files(folders).values())


def size_freed(folders: Iterable[Path]) -> int:
    """Return the bytes that are free once folders are gone: not those that another commit has, too."""
    return sum(state.st_size for state, names in _files(folders).values() if names == state.st_nlink)


def _files(folders: Iterable[Path]) -> dict[tuple[int, int], tuple[os.stat_result, int]]:
    """Return each file below the folders once, and how many names it has there. Those of a pull at work may go."""
    found: dict[tuple[int, int], tuple[os.stat_result, int]] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                state = path.lstat()
                if stat.S_ISREG(state.st_mode):
                    _, names = found.get((state.st_dev, state.st_ino), (state, 0))
                    found[state.st_dev, state.st_ino] = (state, names + 1)
    return found


def remove_tree(folder: Path) -> None:
    """Remove a folder; under another name first, so that half of it is never taken for the whole."""
    leaving = folder.with_name(folder.name + LEAVING)
    if leaving.exists():
        shutil.rmtree(leaving)
    folder.replace(leaving)
    shutil.rmtree(leaving)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
