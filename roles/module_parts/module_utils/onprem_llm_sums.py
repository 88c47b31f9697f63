# SPDX-License-Identifier: Apache-2.0
"""Files that are compared with a list of paths, sizes and sha256."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK = 1024 * 1024  # bytes that are read at a time


def sha256(path):
    """Return the digest of a file of any size. Raises OSError."""
    digest = hashlib.sha256()  # not hashlib.file_digest: a host may have Python 3.9
    with path.open("rb") as handle:
        for block in iter(lambda: handle.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def below(folder, name):
    """Return a path below the folder. Raises ValueError for one that leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
        raise ValueError(f"found the path {name!r}, expected one below {folder}")
    return folder / name


def between(folder, name):
    """Return the folders on the way to a path, the outermost first. Raises ValueError for a link: it leads anywhere."""
    found, here = [], folder
    for part in below(folder, name).relative_to(folder).parts[:-1]:
        here = here / part
        if here.is_symlink():
            raise ValueError(f"{here} is a link, expected a folder: remove it, nothing is written through links")
        found.append(here)
    return found


def make_between(folder, name):
    """Make the folder and those on the way to a path. Raises OSError, ValueError."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in between(folder, name):
        one.mkdir(exist_ok=True)


def is_right(folder, wanted):
    """Tell whether a file of the list is in the folder, whole; a link never is. Raises OSError, ValueError."""
    between(folder, wanted["path"])
    path = below(folder, wanted["path"])
    if path.is_symlink() or not path.is_file() or path.stat().st_size != wanted["size"]:
        return False
    return sha256(path) == wanted["sha256"]
