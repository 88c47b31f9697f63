"""What onprem-llm left on a host: projects, keys, weights, the book, the lock. Reads only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import time

LOCK_UNIT = "onprem-llm-lock.service"
LOCK_FILE = "/run/systemd/transient/" + LOCK_UNIT
NOT_HASHED = ("data", "secrets")  # folders of a project that hold what its containers and its keys wrote
LARGEST_FILE = 16 * 1024 * 1024  # bytes; a rendered file is a few kB, anything larger is somebody else's


def fingerprint(salt, value):
    """Return 16 hexadecimal digits that tell whether two secrets are the same, and nothing more."""
    return hashlib.sha256(salt.encode() + value).hexdigest()[:16]


def _bytes(path):
    with open(path, "rb") as handle:
        return handle.read()


def _hashes(folder):
    """Return {relative path: sha256} of a project's rendered files; `.env` is the role's own."""
    found = {}
    for root, folders, names in os.walk(folder):
        if root == folder:
            folders[:] = [name for name in folders if name not in NOT_HASHED]
        for name in names:
            path = os.path.join(root, name)
            relative = os.path.relpath(path, folder)
            with contextlib.suppress(OSError):
                if relative != ".env" and os.path.getsize(path) <= LARGEST_FILE:
                    found[relative] = hashlib.sha256(_bytes(path)).hexdigest()
    return found


def _secret_values(folder):
    """Return (content of secrets/env or None, {name: value}) of a project."""
    try:
        content = _bytes(os.path.join(folder, "secrets", "env"))
    except OSError:
        return None, {}
    try:
        words = shlex.split(content.decode("utf-8", "surrogateescape"))
    except ValueError:
        return content, {}
    pairs = (word.partition("=") for word in words)
    return content, {name: value.encode("utf-8", "surrogateescape") for name, _, value in pairs}


def project(folder, salt):
    """Return (project without containers, {name: fingerprint}, {name: [fingerprint of each ;-part]})."""
    content, values = _secret_values(folder)
    found = {
        "path": folder,
        "files": _hashes(folder),
        "secrets_digest": None if content is None else hashlib.sha256(content).hexdigest()[:16],
        "containers": [],
    }
    if not salt:
        return found, {}, {}
    whole = {name: fingerprint(salt, value) for name, value in values.items()}
    parts = {name: [fingerprint(salt, part) for part in value.split(b";")] for name, value in values.items()}
    return found, whole, parts


def project_folders(data_root):
    """Yield (name, folder) of every project below `data_root`: the folders that hold a compose.yaml."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(data_root)):
            folder = os.path.join(data_root, name)
            if os.path.isfile(os.path.join(folder, "compose.yaml")):
                yield name, folder


def keys(data_root, salt):
    """Return {name: fingerprint} of the keys below `data_root`."""
    found = {}
    folder = os.path.join(data_root, "secrets")
    if salt and os.path.isdir(folder):
        for name in sorted(os.listdir(folder)):
            with contextlib.suppress(OSError):
                found[name] = fingerprint(salt, _bytes(os.path.join(folder, name)).strip())
    return found


def _drift(folder, files):
    """Return the files whose size or date is not what it was when their hash was checked, missing ones too."""
    found = []
    for path, (size, mtime_ns, _sha256) in files.items():
        try:
            stat = os.stat(os.path.join(folder, path))
        except OSError:
            found.append(path)
            continue
        if stat.st_size != size or stat.st_mtime_ns != mtime_ns:
            found.append(path)
    return sorted(found)


def weights(weights_dir):
    """Return the `weights` part of the probe: folders, and whether they are what was verified."""
    found = {}
    if not os.path.isdir(weights_dir):
        return found
    for name in sorted(os.listdir(weights_dir)):
        folder = os.path.join(weights_dir, name)
        if not os.path.isdir(folder) or name.startswith("."):
            continue
        try:
            files = json.loads(_bytes(folder + ".json").decode())["files"]
            drift = _drift(folder, files)
        except (OSError, ValueError, KeyError, TypeError):
            found[name] = {"path": folder, "files": 0, "bytes": 0, "drift": [], "complete": False}
            continue
        size = sum(entry[0] for entry in files.values())
        found[name] = {"path": folder, "files": len(files), "bytes": size, "drift": drift, "complete": not drift}
    return found


def _deployment(folder):
    """Return the revision of a deployment that the book says is current."""
    revision = int(_bytes(os.path.join(folder, "current")))
    about = json.loads(_bytes(os.path.join(folder, "%d.json" % revision)).decode())
    text = _bytes(os.path.join(folder, "%d.yaml" % revision)).decode()
    return {
        "revision": revision,
        "model_yaml": text,
        "images": about["images"],
        "recorded_at": about["recorded_at"],
    }


def book(book_dir):
    """Return the `book` part of the probe, or None on a host that has none."""
    if not os.path.isdir(book_dir):
        return None
    found = {"gateway": os.path.isfile(os.path.join(book_dir, "gateway")), "deployments": {}, "removed": {}, "errors": []}
    for name in sorted(os.listdir(book_dir)):
        folder = os.path.join(book_dir, name)
        if not os.path.isdir(folder):
            continue
        if not os.path.exists(os.path.join(folder, "current")):
            revisions = [int(entry[:-5]) for entry in os.listdir(folder) if entry[:-5].isdigit()]
            found["removed"][name] = max(revisions, default=0)
            continue
        try:
            found["deployments"][name] = _deployment(folder)
        except (OSError, ValueError, KeyError) as error:
            found["errors"].append("%s: %s" % (folder, error))
    return found


def lock():
    """Return who holds the deployment lock and for how many seconds, or None."""
    try:
        text = _bytes(LOCK_FILE).decode("utf-8", "replace")
        age = time.time() - os.stat(LOCK_FILE).st_mtime
    except OSError:
        return None
    owner = ""
    for line in text.splitlines():
        if line.startswith("Description="):
            owner = line.partition("=")[2].replace("%%", "%")
    return {"owner": owner, "age": round(max(age, 0.0), 1), "unit": LOCK_UNIT}
