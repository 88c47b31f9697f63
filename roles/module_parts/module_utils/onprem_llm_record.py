"""What bootstrap found on a host before it changed anything, so that `uninstall` can put it back.

/var/lib/onprem-llm/bootstrap.json, root's alone (a daemon.json may hold a proxy's password):
  absent    paths that were not there before
  empty     folders that were there and had nothing in them
  packages  what was installed, dependencies included
  run_file  NVIDIA's installer that was run, which has its own way to take back what it did
  held      packages that are kept at their version, and were not before
  daemon    daemon.json's text before (null: no file), its mode, and the keys that are ours as we wrote them
  files     other files that were there and are written anew: {path: {before: text, mode: number}}
  registries  registries that root was logged in to
  services  what `systemctl is-enabled` said before
  groups    the group docker, where it was there
  kernel    net.ipv4.ip_forward before, and the nftables tables that were there
A second bootstrap adds to it and changes nothing that stands there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict

from ansible.module_utils.onprem_llm_write import put

RECORD = Path("/var/lib/onprem-llm/bootstrap.json")

Record = Dict[str, Any]


def load() -> Record:
    """Return what is recorded so far, empty where nothing is. Raises ValueError for a file that is not ours."""
    if not RECORD.exists():
        return {}
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{RECORD}: found {type(found).__name__}, expected a mapping; move the file away")
    return found


def save(record: Record) -> None:
    """Write the record in one piece."""
    RECORD.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    put(RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")


def note_daemon(before: str | None, mode: int | None, changed: dict[str, Any]) -> None:
    """Keep daemon.json as it was found first, and our keys as they were written last."""
    record = load()
    daemon = record.setdefault("daemon", {"before": before, "mode": mode, "ours": {}})
    daemon["ours"].update(changed)
    save(record)


def note_file(path: Path) -> None:
    """Keep a file as it was found first, before it is written anew; one that is not there is not noted."""
    record = load()
    files = record.setdefault("files", {})
    if path.is_file() and str(path) not in files:
        files[str(path)] = {"before": path.read_text(encoding="utf-8"), "mode": path.stat().st_mode & 0o777}
        save(record)


def note_absent(paths: list[str], check_mode: bool) -> bool:
    """Add the paths that are not there yet, or are empty folders; return whether there were new ones."""
    record = load()
    absent, empty = record.setdefault("absent", []), record.setdefault("empty", [])
    new = [path for path in paths if path not in absent and not os.path.lexists(path)]
    bare = [path for path in paths if path not in [*absent, *empty] and _is_empty(Path(path))]
    if (new or bare) and not check_mode:
        record["absent"], record["empty"] = sorted([*absent, *new]), sorted([*empty, *bare])
        save(record)
    return bool(new or bare)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def begin_packages(installed: list[str]) -> None:
    """Keep the list of packages from before an installation, also over a run that is cut off."""
    record = load()
    record.setdefault("packages_before", sorted(installed))
    save(record)


def end_packages(installed: list[str]) -> None:
    """Add what has come since `begin_packages`."""
    record = load()
    before = set(record.pop("packages_before", installed))
    record["packages"] = sorted({*record.get("packages", []), *(set(installed) - before)})
    save(record)


def note_run_file(path: str) -> None:
    """Keep which installer was run."""
    save({**load(), "run_file": path})


def note_held(names: list[str]) -> None:
    """Add packages that are going to be held; those that a person held are never passed here."""
    record = load()
    record["held"] = sorted({*record.get("held", []), *names})
    save(record)
