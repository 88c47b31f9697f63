"""Put blobs into a folder: each whole, with the sum that it must have, or not at all."""

import contextlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from onprem_llm.bundle.files import Moved, clone, copy_stream, hash_stream, open_plain, share
from onprem_llm.errors import OnpremError
from onprem_llm.whole_files import PARTIAL


def is_there(path: Path, size: int) -> bool:
    """Tell whether a blob has got its name, which it does once it is whole and was hashed."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    return not path.is_symlink() and path.is_file() and state.st_size == size


def place_file(
    root: Path, name: str, target: Path, expected: tuple[str, int], moved: Moved, label: str = "", *,
    ours_alone: bool = False,
) -> bool:  # fmt: skip
    """Share or copy ROOT/NAME, where no part of the name may be a link; False where it is there already.

    `expected` are its sha256 and size; OnpremError where it has others, or is not there. `label` names it for people.
    With `ours_alone`, what others may write to is copied, not linked to.
    """
    called = f"{root / name} ({label})" if label else f"{root / name}"
    if is_there(target, expected[1]):
        moved(expected[1])
        return False
    partial = target.with_name(target.name + PARTIAL)
    with _opened(root, name, called) as stream:
        if share(stream, root / name, partial, ours_alone=ours_alone):
            with partial.open("rb", buffering=0) as shared:
                found = hash_stream(shared, moved)
        else:
            found = _copy(stream, partial, moved)
    _named(partial, target, found, expected, called)
    return True


def _opened(root: Path, name: str, called: str) -> BinaryIO:
    try:
        return open_plain(root, name)
    except FileNotFoundError:
        raise OnpremError(f"{called}: is missing", hint="copy it again from where it was made") from None


def place_data(data: bytes, target: Path, sha256: str) -> bool:
    """Write bytes that were made here; False where they are there already."""
    if is_there(target, len(data)):
        return False
    partial = target.with_name(target.name + PARTIAL)
    found = _copy(io.BytesIO(data), partial, _nowhere)
    _named(partial, target, found, (sha256, len(data)), target.name)
    return True


def _copy(stream: BinaryIO, partial: Path, moved: Moved) -> tuple[str, int]:
    # Whatever has this name: a link must not lead us elsewhere.
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    with partial.open("xb", buffering=0) as out:
        found = copy_stream(stream, out, moved)
        os.fsync(out.fileno())
    return found


def _named(partial: Path, target: Path, found: tuple[str, int], expected: tuple[str, int], source: str) -> None:
    if found != expected:
        partial.unlink()
        raise OnpremError(
            f"{source}: found {found[1]} bytes with sha256 {found[0]}, expected {expected[1]} bytes with {expected[0]}",
            hint="it was altered since it was fetched or copied: remove it, fetch or copy it again (onprem-llm lock, "
            "onprem-llm weights pull --verify, the medium's origin), and run the same command: it goes on from there",
        )
    partial.replace(target)


def sweep(folder: Path) -> None:
    """Remove what a run that was killed had in its hands."""
    for path in folder.glob(f"*{PARTIAL}"):
        path.unlink()


def _nowhere(_: int) -> None:
    """For what is too small to tell of."""


def can_clone(folder: Path) -> bool:
    """Tell whether the folder's file system lets files share bytes (Btrfs, XFS)."""
    one, two = folder / f".probe{PARTIAL}", folder / f".probe-clone{PARTIAL}"
    two.unlink(missing_ok=True)
    try:
        one.write_bytes(b"probe")
        with one.open("rb") as stream:
            return clone(stream, two)
    finally:
        one.unlink(missing_ok=True)
        two.unlink(missing_ok=True)


def can_link(folder: Path) -> bool:
    """Tell whether the folder's file system has hard links."""
    one, two = folder / f".probe{PARTIAL}", folder / f".probe-link{PARTIAL}"
    two.unlink(missing_ok=True)
    try:
        one.touch()
        two.hardlink_to(one)
    except OSError:
        return False
    finally:
        one.unlink(missing_ok=True)
        two.unlink(missing_ok=True)
    return True
