"""Folders that people and programs know, made from blobs: weights, a package repository, wheels, licences."""

import contextlib
import hashlib
import shutil
from pathlib import Path

from onprem_llm.bundle.debs import INDEX
from onprem_llm.bundle.files import link
from onprem_llm.bundle.manifest import BLOBS, FolderView, Manifest
from onprem_llm.bundle.place import is_there, place_file
from onprem_llm.package_signing import PUBLIC, RELEASE, SIGNATURE, SIGNED
from onprem_llm.weights.store import sync_folder
from onprem_llm.whole_files import write_whole

# A repository is what its signature says, not when it was made; apt wants a date, and keeps a newer one.
_DATE = "Thu, 01 Jan 1970 00:00:00 UTC"


def folder_of_view(root: Path, view: FolderView) -> Path:
    """Return where a view is on site."""
    return root / view.kind / view.name


def is_made(root: Path, view: FolderView, sizes: dict[str, int], links: bool) -> bool:
    """Look whether a view holds its files, and no others; with `links`, whether those are blobs.

    Reads nothing but what a repository says of itself.
    """
    folder = folder_of_view(root, view)
    if not folder.is_dir() or not all(is_there(folder / f.path, sizes[f.sha256]) for f in view.files):
        return False
    # A blob that was damaged and brought again has left its old bytes here.
    if links and not all((folder / f.path).samefile(root / BLOBS / f.sha256) for f in view.files):
        return False
    if is_apt(view) and not _is_released(folder, view):
        return False
    known = {folder / file.path for file in view.files}
    own = _own_files(view)
    return all(
        path in known or path.name in own for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    )  # fmt: skip


def _is_released(folder: Path, view: FolderView) -> bool:
    """Look whether `Release` is what it was made as: it is what gets the site's signature."""
    release = folder / RELEASE
    return not release.is_symlink() and release.is_file() and release.read_bytes() == release_bytes(
        view, (folder / INDEX).read_bytes()
    )  # fmt: skip


def make_view(root: Path, view: FolderView, sizes: dict[str, int], blobs: Path) -> None:
    """Make a view beside its place, then give it its name: nobody sees half of one."""
    folder = folder_of_view(root, view)
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for rest in (new, old):
        shutil.rmtree(rest, ignore_errors=True)
    for file in view.files:
        target = new / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not link(blobs / file.sha256, target):
            place_file(blobs, file.sha256, target, (file.sha256, sizes[file.sha256]), _quiet)
    if is_apt(view):
        write_whole(new / RELEASE, release_bytes(view, (new / INDEX).read_bytes()))
    sync_folder(new)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    new.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def is_apt(view: FolderView) -> bool:
    """Tell whether a view is a repository for apt; dnf's has its index among its files, and nothing is made for it."""
    return view.kind == "packages" and any(file.path == INDEX for file in view.files)


def release_bytes(view: FolderView, index: bytes) -> bytes:
    """Return `Release` of a repository without folders (`deb … ./`). Who has the site's key signs these bytes."""
    about = view.about
    lines = [
        "Origin: onprem-llm", f"Label: onprem-llm {view.name}", f"Suite: {about.get('codename')}",
        f"Codename: {about.get('codename')}", f"Architectures: {about.get('architecture')}",
        f"Date: {_DATE}", "SHA256:",
        f" {hashlib.sha256(index).hexdigest()} {len(index)} {INDEX}",
    ]  # fmt: skip
    return ("\n".join(lines) + "\n").encode()


def copied_bytes(manifest: Manifest, root: Path, sizes: dict[str, int]) -> int:
    """Return what views take on a file system that has no hard links: one copy of each file that is not there."""
    return sum(
        sizes[file.sha256]
        for view in manifest.folders
        for file in view.files
        if not is_there(folder_of_view(root, view) / file.path, sizes[file.sha256])
    )


def _own_files(view: FolderView) -> set[str]:
    """Names that stand in a view beside its files: the repository's, and its signatures."""
    if view.kind != "packages":
        return set()
    return {RELEASE, SIGNED, PUBLIC} if is_apt(view) else {Path(SIGNATURE).name, PUBLIC}


def _quiet(_: int) -> None:
    """Links take no time that a person would want to see."""
