"""Where a rehearsal works and where its proof goes: nobody else is there meanwhile, and nothing of another bundle."""

import contextlib
import fcntl
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from onprem_llm.bundle.layout import volume_folders
from onprem_llm.bundle.manifest import MANIFEST
from onprem_llm.errors import InvalidError, RefusedError
from onprem_llm.prove import within

# How a site's folder was once called; --work may name a folder with others' so called, so that a lock is wanted in it.
FORMER = re.compile(r"[0-9a-f]{12}")
# What a command may take to put things in order once its rehearsal is gone.
LONGEST_S = 120


@contextlib.contextmanager
def hold(path: Path, what: str, otherwise: str = "") -> Iterator[None]:
    """Hold a lock file; RefusedError where somebody else does: `what` is at work, `otherwise` what can be done."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = f"run this again when it is done{', ' if otherwise else ''}{otherwise}"
            raise RefusedError(f"{what} is at work", hint=hint) from None
        yield


@contextlib.contextmanager
def site_folder(parent: Path, bases: Sequence[Path], folders: Sequence[Path]) -> Iterator[Path]:
    """Give the folder for the site; RefusedError: in use.

    It stays for a second rehearsal of the same bundles. Its name is where they lie and what their manifests say: what a
    former bundle in the same place brought is not taken for this one's.
    """
    lie = _short("\n".join(map(str, (*bases, "", *folders))).encode())
    what = _short(b"\n".join(hashlib.sha256(_identity(path)).digest() for path in (*bases, *folders)))
    place = parent.absolute() / f"{lie}-{what}"
    with hold(place / "lock", f"another rehearsal of {folders[0]} in {place}"):
        yield place / "site"


def wait_for_commands(place: Path, say: Callable[[str], None], seconds: float = LONGEST_S) -> None:
    """Wait for the end of commands that a killed rehearsal of what lies there had begun; RefusedError: not in time."""
    deadline = time.monotonic() + seconds
    for one in sorted(place.parent.glob(f"{where(place)}-*")):
        told = False
        while True:
            try:
                with hold(one / within.LOCK, f"a command of a rehearsal that was killed, in {one},"):
                    break
            except RefusedError:
                if time.monotonic() > deadline:
                    raise
            if not told:
                say("A rehearsal was killed, and a command of it is still at work: waiting for its end")
                told = True
            time.sleep(0.2)


def where(place: Path) -> str:
    """Return the part of a site folder's name that says where its bundles lie."""
    return place.name.partition("-")[0]


def remove_stale(place: Path) -> None:
    """Remove what former bundles from where this one lies brought, unless a rehearsal of one is at work.

    What was left by versions that named their folders otherwise goes too: nothing takes it any more.
    """
    former = [one for one in place.parent.iterdir() if FORMER.fullmatch(one.name) and (one / "lock").is_file()]
    for other in (*place.parent.glob(f"{where(place)}-*"), *former):
        if other != place and other.is_dir():
            command = hold(other / within.LOCK, "a command")
            with contextlib.suppress(RefusedError), hold(other / "lock", "a rehearsal"), command:
                shutil.rmtree(other)


def check_writable(folder: Path) -> None:
    """InvalidError where no file can be made in a folder: before hours are spent on what should go there."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".proof-"):
            pass
    except OSError as error:
        raise InvalidError(
            f"{folder}: the proof cannot be written there: {error.strerror}", hint="name another folder: --out DIR"
        ) from None


def _identity(folder: Path) -> bytes:
    """Return a bundle's manifest; where there is none, which `bundle verify` explains, its path."""
    for path in (folder, *volume_folders(folder)):
        with contextlib.suppress(OSError):
            return (path / MANIFEST).read_bytes()
    return str(folder).encode()


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
