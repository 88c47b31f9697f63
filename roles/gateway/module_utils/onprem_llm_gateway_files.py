# SPDX-License-Identifier: Apache-2.0
"""The files of the gateway's project: rendered ones and secrets, staged, swapped, and put back where need be."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.onprem_llm_write import put

COMPOSE_FILE = "compose.yaml"
RECORD = ".rendered.json"  # the names of the rendered files; the probe hashes these
LOADED = Path("run", "loaded.json")  # what the running process has read: path -> sha256
ENGINE_KEYS = "secrets/engine-keys.cfg"
# Written by others (role certificates), read by HAProxy: a new one wants a reload, too.
CERTIFICATES = ("secrets/gateway.pem", "secrets/ca.crt")
# Compose's file has a secret of this name in every project of ours; the gateway has nothing to put there.
EMPTY_ENV = ("secrets/env", ".env")
RESERVED = ("secrets", "run", "state", ".env", RECORD)
FOLDERS = {"conf": 0o755, "conf/deployments": 0o755, "secrets": 0o700, "run": 0o700, "state": 0o700}
VARIABLE = re.compile(r"^[A-Z_][A-Z0-9_]*$")
KEY = re.compile(r"^[A-Za-z0-9._~+/=-]+$")


class FilesError(Exception):
    """What is wrong with a file; for a person, never with a key."""


def check_names(names):
    """Refuse names that leave the folder or that the role writes itself."""
    for name in names:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or parts[0] in RESERVED:
            raise FilesError(
                f"the gateway may not have a file named {name!r}: it must be a plain path inside the folder"
            )
    if COMPOSE_FILE not in names:
        raise FilesError(f"the gateway has no {COMPOSE_FILE}; files: {', '.join(sorted(names)) or 'none'}")


def engine_keys(secrets, names):
    """Return the text of engine-keys.cfg for {variable: name of a key}."""
    lines = ["global"]
    for variable, name in sorted(names.items()):
        path = Path(secrets, name)
        try:
            value = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise FilesError(f"the engine key {path} cannot be read: {error.strerror}; deploy again") from None
        if not VARIABLE.fullmatch(variable) or not KEY.fullmatch(value):
            raise FilesError(f"the engine key {path} is empty or no key of ours; remove it and deploy again")
        lines.append(f'    setenv {variable} "{value}"')
    return "\n".join(lines) + "\n"


def recorded(folder):
    """Return the names of the files that an earlier run rendered."""
    try:
        return set(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()


def mode_of(name):
    """Return a file's mode: secrets are root's alone."""
    return 0o600 if name.startswith("secrets/") else 0o644


def differing(folder, wanted):
    """Return the names of the files that are absent or have another content or mode."""
    found = []
    for name, content in sorted(wanted.items()):
        path = folder / name
        try:
            same = path.read_bytes() == content and path.stat().st_mode & 0o777 == mode_of(name)
        except OSError:
            same = False
        if not same:
            found.append(name)
    return found


def write(folder, name, content):
    """Write one file below `folder` in one piece."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, content, mode_of(name))


def folders(folder):
    """Make the folders that are mounted into the container."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, mode in FOLDERS.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)


@contextlib.contextmanager
def staged(folder, wanted):
    """Yield a folder below `folder` that looks as `folder` will, its secrets too; it is gone at the end."""
    for left in folder.glob(".new-*"):  # from a run that was cut off
        shutil.rmtree(str(left), ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=".new-", dir=str(folder)))
    try:
        folders(place)
        for name, content in wanted.items():
            write(place, name, content)
        for name in CERTIFICATES:
            if (folder / name).exists():
                write(place, name, (folder / name).read_bytes())
        yield place
    finally:
        shutil.rmtree(str(place), ignore_errors=True)


def swap(folder, wanted):
    """Bring the files into the folder and remove what is no longer rendered; compose.yaml comes last.

    Returns {name: content, None where there was none} of what was there, for `restore`.
    """
    before = recorded(folder)
    rendered = {name for name in wanted if not name.startswith("secrets/") and name != ".env"}
    former = {}
    for name in {*wanted, *before, RECORD}:
        path = folder / name
        former[name] = path.read_bytes() if path.is_file() else None
    for name in sorted(wanted, key=lambda one: one == COMPOSE_FILE):
        replace(folder, name, wanted[name])
    for name in before - rendered:
        replace(folder, name, None)
    replace(folder, RECORD, json.dumps(sorted(rendered)).encode())
    return former


def replace(folder, name, content):
    """Put one file in its place at once, or take it away."""
    path = folder / name
    if content is None:
        if path.exists():
            path.unlink()
        return
    write(folder, name, content)


def restore(folder, former):
    """Put back what `swap` found."""
    for name in sorted(former, key=lambda one: one == COMPOSE_FILE):
        replace(folder, name, former[name])


def sums(folder):
    """Return {path: sha256} of what HAProxy reads: what is rendered for it, and its secrets."""
    found = {}
    for name in sorted({*recorded(folder), ENGINE_KEYS, *CERTIFICATES} - {COMPOSE_FILE}):
        with contextlib.suppress(OSError):
            found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found


def loaded(folder):
    """Return {path: sha256} of what the running process has read, None where that is unknown."""
    try:
        found = json.loads((folder / LOADED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def remember_loaded(folder):
    """Write down that the running process has read the files as they are."""
    put(folder / LOADED, json.dumps(sums(folder), indent=1))
