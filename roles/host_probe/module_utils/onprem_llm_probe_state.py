"""What onprem-llm left on a host: projects, keys, weights, the book, the lock. Reads only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import time
from pathlib import Path

LOCK_UNIT = "onprem-llm-lock.service"
LOCK_FILE = Path("/run/systemd/transient") / LOCK_UNIT
BOOK_FILES = ("gateway", "second", "events.jsonl", "hosts.json")
RENDERED = ".rendered.json"  # written by role compose_project: the names of the files it wrote
LARGEST_FILE = 16 * 1024 * 1024  # bytes; a rendered file is a few kB, anything larger is somebody else's


def fingerprint(salt, value):
    """Return 16 hexadecimal digits a part that tell whether two secrets are the same, and nothing more.

    Keys joined by ";" are told one by one, so that each can be compared with its key file.
    """
    return ";".join(hashlib.sha256(salt.encode() + part).hexdigest()[:16] for part in value.split(b";"))


def _folders(path):
    """Return the folders right below `path`, sorted; none where it does not exist."""
    try:
        return sorted(one for one in Path(path).iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return []


def _hashes(folder):
    """Return {relative path: sha256} of the files that were rendered for a project; a missing one is left out."""
    names = ["compose.yaml"]
    with contextlib.suppress(OSError, ValueError):
        names = json.loads((folder / RENDERED).read_text(encoding="utf-8"))
    found = {}
    for name in sorted(names):
        path = folder / name
        with contextlib.suppress(OSError):
            if path.stat().st_size <= LARGEST_FILE:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _secret_values(folder):
    """Return (content of secrets/env or None, {name: value}) of a project."""
    try:
        content = (folder / "secrets" / "env").read_bytes()
    except OSError:
        return None, {}
    try:
        words = shlex.split(content.decode("utf-8", "surrogateescape"))
    except ValueError:
        return content, {}
    pairs = (word.partition("=") for word in words)
    return content, {name: value.encode("utf-8", "surrogateescape") for name, _, value in pairs}


def project(folder, salt):
    """Return (project without containers, {name: fingerprint} of its secrets)."""
    content, values = _secret_values(folder)
    found = {
        "path": str(folder),
        "files": _hashes(folder),
        "secrets_digest": None if content is None else hashlib.sha256(content).hexdigest()[:16],
        "containers": [],
    }
    return found, {name: fingerprint(salt, value) for name, value in values.items()} if salt else {}


def project_names(data_root):
    """Return the projects below `data_root`: the folders that hold a compose.yaml."""
    return [folder.name for folder in _folders(data_root) if (folder / "compose.yaml").is_file()]


def keys(data_root, salt):
    """Return {name: fingerprint} of the keys below `data_root`."""
    found = {}
    with contextlib.suppress(OSError):
        for path in sorted(Path(data_root, "secrets").iterdir()) if salt else ():
            found[path.name] = fingerprint(salt, path.read_bytes().strip())
    return found


def _drift(folder, files):
    """Return the files whose size or date is not what it was when their hash was checked, missing ones too."""
    found = []
    for path, (size, mtime_ns, _sha256) in files.items():
        try:
            stat = (folder / path).stat()
        except OSError:
            found.append(path)
            continue
        if stat.st_size != size or stat.st_mtime_ns != mtime_ns:
            found.append(path)
    return sorted(found)


def weights(weights_dir):
    """Return the `weights` part of the probe: folders, and whether they are what was verified."""
    found = {}
    for folder in _folders(weights_dir):
        about = {"path": str(folder), "files": 0, "bytes": 0, "drift": [], "complete": False}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            files = json.loads(folder.with_name(folder.name + ".json").read_text(encoding="utf-8"))["files"]
            drift = _drift(folder, files)
            about.update(files=len(files), bytes=sum(entry[0] for entry in files.values()))
            about.update(drift=drift, complete=not drift)
        found[folder.name] = about
    return found


def _rollout(folder):
    """Return the revisions under way and the last number given, as book_pending wrote them."""
    try:
        about = json.loads((folder / "rollout.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"pending": [], "last": 0}
    return {"pending": about["pending"], "last": about["last"]}


def _last_number(folder):
    """Return the last number that a deployment gave which was taken down; 0 for a folder of something else."""
    given = [int(path.stem) for path in folder.glob("*.yaml") if path.stem.isdigit()]
    return max([*given, _rollout(folder)["last"]])


def _deployment(folder):
    """Return the revision of a deployment that the book says is current."""
    revision = int((folder / "current").read_text())
    about = json.loads((folder / f"{revision}.json").read_text(encoding="utf-8"))
    return {
        "revision": revision,
        "model_yaml": (folder / f"{revision}.yaml").read_text(encoding="utf-8"),
        "images": about["images"],
        "recorded_at": about["recorded_at"],
        "placement": about.get("placement") or {},
        **_rollout(folder),
    }


def _marks(path):
    """Return what was said of hosts (drained, lost), by name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def book(book_dir):
    """Return the `book` part of the probe, or None on a host that has none."""
    root = Path(book_dir)
    # Bootstrap keeps notes of its own in this folder on every host.
    if not any((root / name).exists() for name in BOOK_FILES) and not list(root.glob("*/current")):
        return None
    found = {"gateway": (root / "gateway").is_file(), "second": (root / "second").is_file()}
    found.update(deployments={}, removed={}, errors=[], hosts={})
    try:
        found["hosts"] = _marks(root / "hosts.json")
    except (OSError, ValueError) as error:
        found["errors"].append(f"{root / 'hosts.json'}: {error}")
    for folder in _folders(root):
        try:
            if (folder / "current").exists():
                found["deployments"][folder.name] = _deployment(folder)
            elif _last_number(folder):  # else it is no deployment's: keys, ca
                found["removed"][folder.name] = _last_number(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            found["errors"].append(f"{folder}: {error}")
    return found


def network(book_dir):
    """Return what check --network found wrong with lines between hosts, or None where the book was never told."""
    path = Path(book_dir, "network.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def lock():
    """Return who holds the deployment lock and for how many seconds, or None."""
    try:
        text = LOCK_FILE.read_text(encoding="utf-8", errors="replace")
        age = time.time() - LOCK_FILE.stat().st_mtime
    except OSError:
        return None
    descriptions = [line[len("Description=") :] for line in text.splitlines() if line.startswith("Description=")]
    owner = descriptions[-1].replace("%%", "%") if descriptions else ""
    return {"owner": owner, "age": round(max(age, 0.0), 1), "unit": LOCK_UNIT}
