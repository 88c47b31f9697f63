"""The partial folder of a pull: files arrive as parts, are verified, and only then get their names.

    .incoming/<digest of path and hash>.part   bytes as they come
    <name>/<path>                              verified
    .verified.jsonl                            a line for each of these, written after it has its name

No model's name begins with a dot. A part is never changed but by appending to it: its bytes may be those of another
commit. To begin anew is a new file.

Every order of events around a kill leads on: a named file without a line is read again, a line without its file is
fetched again, a line that was cut short is none.
"""

import hashlib
import os
import threading
from pathlib import Path

from onprem_llm.weights.hubs.hub import HubFile
from onprem_llm.weights.manifest import Checked, Manifest, ManifestFile, read_lines
from onprem_llm.weights.store import INCOMING, JOURNAL, MANIFEST, Entry, sync_folder
from onprem_llm.weights.sums import Sums, sums_of


class Arriving:
    """What there is of a pull so far."""

    def __init__(self, entry: Entry, name: str) -> None:
        """Take up what an earlier run left."""
        self._entry = entry
        self._folder = entry.partial / name
        self._incoming = entry.partial / INCOMING
        self._journal = entry.partial / JOURNAL
        self._writing = threading.Lock()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        self._verified = self._read_journal()

    def have(self, file: HubFile) -> bool:
        """Tell whether a file is verified; one that lies here without proof becomes a part again."""
        place, known = self._folder / file.path, self._verified.get(file.path)
        whole = place.is_file() and not place.is_symlink()
        if whole and known and place.stat().st_size == file.size == known.size and _same(known, file):
            return True
        self._verified.pop(file.path, None)
        if whole:
            place.replace(self.part(file))
        return False

    def come(self, file: HubFile) -> int:
        """Return how many bytes of a file are here."""
        part = self.part(file)
        return file.size if file.path in self._verified else part.stat().st_size if part.exists() else 0

    def part(self, file: HubFile) -> Path:
        """Return where the bytes of a file arrive."""
        # Its hash belongs to the name: what another commit calls so are the beginnings of the same bytes.
        said = f"{file.path}\0{file.sha256 or file.git_sha1 or ''}"
        return self._incoming / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.part"

    def take(self, file: HubFile, other: Entry) -> None:
        """Take the beginning of a file that a pull of another commit left; the caller holds that one's lock."""
        theirs, ours = other.partial / INCOMING / self.part(file).name, self.part(file)
        if not (file.sha256 or file.git_sha1) or theirs.is_symlink() or not theirs.is_file():
            return
        if not ours.exists() or ours.stat().st_size < theirs.stat().st_size:
            theirs.replace(ours)

    def text(self, file: HubFile) -> str:
        """Read a verified file that is text."""
        return (self._folder / file.path).read_text(encoding="utf-8", errors="replace")

    def adopt(self, file: HubFile, other: Path) -> bool:
        """Take a file that another pull has, too, by a link to its bytes; they are read again, like any others.

        What has come of it stays until they have proved to be right.
        """
        part = self.part(file)
        link = part.with_name(part.name + ".linked")
        try:
            if other.is_symlink() or other.stat().st_size != file.size:
                return False
            link.unlink(missing_ok=True)
            os.link(other, link)
        except OSError:
            return False  # Gone meanwhile, or a file system without links: it is fetched.
        if self.accept(file, link) is None:
            part.unlink(missing_ok=True)
            return True
        link.unlink()
        return False

    def accept(self, file: HubFile, part: Path | None = None) -> str | None:
        """Verify a part against the hub's hash and give it its name; return what is wrong with it, if anything."""
        part = part or self.part(file)
        sums = sums_of(part, git=file.sha256 is None and file.git_sha1 is not None)
        problem = _problem(file, sums)
        if problem:
            return problem
        place = self._folder / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        _sync(part)
        part.replace(place)
        checked: Checked = "sha256" if file.sha256 else "git-sha1" if file.git_sha1 else "size"
        self._note(ManifestFile(
            path=file.path, size=sums.size, sha256=sums.sha256, chunks=sums.chunks, checked=checked
        ))  # fmt: skip
        return None

    def finish(self, manifest: Manifest) -> None:
        """Give the whole its name: from now on it is what it says it is."""
        wanted = {self._folder / file.path for file in manifest.files}
        for path in [path for path in self._folder.rglob("*") if not path.is_dir() or path.is_symlink()]:
            if path not in wanted:
                path.unlink()
        for path in self._incoming.iterdir():
            path.unlink()
        self._incoming.rmdir()
        manifest.write(self._entry.partial / MANIFEST)
        self._journal.unlink(missing_ok=True)
        for folder in {path.parent for path in wanted} | {self._folder, self._entry.partial}:
            sync_folder(folder)
        self._entry.partial.replace(self._entry.folder)
        sync_folder(self._entry.folder.parent)

    def files(self, wanted: list[HubFile]) -> tuple[ManifestFile, ...]:
        """Return the manifest's lines for the files of a pull, sorted by path."""
        return tuple(self._verified[path] for path in sorted(file.path for file in wanted))

    def _note(self, line: ManifestFile) -> None:
        with self._writing, self._journal.open("a", encoding="utf-8") as stream:
            stream.write(line.model_dump_json() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            self._verified[line.path] = line

    def _read_journal(self) -> dict[str, ManifestFile]:
        found = read_lines(self._journal)
        if self._journal.exists():
            # A line that a kill cut short would swallow the next one that is appended to it.
            self._journal.write_text("".join(line.model_dump_json() + "\n" for line in found), encoding="utf-8")
        return {line.path: line for line in found}


def reopen(entry: Entry, name: str, good: list[ManifestFile]) -> None:
    """Turn whole weights of which some files are damaged into a partial pull that lacks these."""
    (entry.folder / INCOMING).mkdir(exist_ok=True)
    kept = {entry.folder / name / file.path for file in good}
    for path in [path for path in (entry.folder / name).rglob("*") if not path.is_dir() or path.is_symlink()]:
        if path not in kept:
            path.unlink()
    text = "".join(file.model_dump_json() + "\n" for file in good)
    (entry.folder / JOURNAL).write_text(text, encoding="utf-8")
    (entry.folder / MANIFEST).unlink()
    entry.folder.replace(entry.partial)


def _same(known: ManifestFile, file: HubFile) -> bool:
    return file.sha256 is None or file.sha256 == known.sha256


def _problem(file: HubFile, sums: Sums) -> str | None:
    if sums.size != file.size:
        return f"found {sums.size} bytes, expected {file.size}"
    if file.sha256 and sums.sha256 != file.sha256:
        return f"found sha256 {sums.sha256}, expected {file.sha256}"
    if not file.sha256 and file.git_sha1 and sums.git_sha1 != file.git_sha1:
        return f"found git's sha1 {sums.git_sha1}, expected {file.git_sha1}"
    return None


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
