"""The scenarios of `make test-system`, `test-faults` and `test-driver`: which there are, need hosts, have passed.

tests/KIND/test_NAME.py is the scenario NAME. HOSTLESS names those that no host is made for, so that ONLY and RESUME
know them: such faults have more tests than a file, and `make test` runs most of them too; rehearsals of bundles make
their hosts themselves. Those of OWN_HOSTS make hosts of their own, one after another under one name.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("ONPREM_LLM_CACHE") or Path.home() / ".cache" / "onprem-llm")
HOSTLESS = {
    "faults": {
        "hubs": "tests/hubs",
        "lock": "tests/locking/test_lock_faults.py",
        "bundle": "tests/bundle",
        "bundle_media": "tests/faults/test_bundle_media.py",
        "packages": "tests/offline/test_packages.py tests/offline/test_apt_faults.py",
        "registry": "tests/offline/test_registry.py tests/offline/test_registry_filled.py",
        "fan_out": "tests/fanout/test_faults.py",
        "prove": "tests/prove/test_killed.py",
    },
    "system": {
        "fit": "tests/fit",
        "lines": "tests/network",
        "prove": "tests/proved/test_prove.py",
        "prove_gang": "tests/proved/test_prove_gang.py",
        "prove_ray": "tests/proved/test_prove_ray.py",
        "ray": "tests/on_ray/test_ray.py",
        "ray_existing": "tests/on_ray/test_existing.py",
    },
}

OWN_HOSTS = ("driver",)


def scenarios(kind: str) -> dict[str, str]:
    """Map the names of a kind's scenarios, those that ONLY asks for, to what pytest is given."""
    files = sorted((ROOT / "tests" / kind).glob("test_*.py"))
    found = HOSTLESS.get(kind, {}) | {
        name: shlex.quote(str(path.relative_to(ROOT)))
        for name, path in ((path.stem.removeprefix("test_"), path) for path in files)
    }
    only = [name for name in os.environ.get("ONLY", "").split(",") if name] or list(found)
    unknown = [name for name in only if name not in found]
    if unknown:
        sys.exit(f"ONLY: {', '.join(unknown)}: no such scenario; there are {', '.join(found)}")
    return {name: found[name] for name in only}


def on_hosts(kind: str, names: Iterable[str]) -> list[str]:
    """Return those of them that need a lab made for them."""
    return [] if kind in OWN_HOSTS else [name for name in names if name not in HOSTLESS.get(kind, {})]


def tree() -> str:
    """Name the tree as it is: the commit, and a digest of what differs from it, new files included."""
    commit = git("rev-parse", "HEAD").strip()
    changed = git("diff", "--binary", "HEAD").encode()
    for name in git("ls-files", "--others", "--exclude-standard", "-z").split("\0")[:-1]:
        path = ROOT / name
        changed += name.encode() + (path.read_bytes() if path.is_file() else b"")
    return commit + (hashlib.sha256(changed).hexdigest() if changed else "")


def git(*arguments: str) -> str:
    """Return what git says."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


class Passed:
    """Which scenarios passed with which tree; kept beside the lab's inventory, outside the tree."""

    def __init__(self, kind: str) -> None:
        """Read what earlier runs left."""
        self.path = CACHE / kind / "passed.json"
        self.trees: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def __contains__(self, name: str) -> bool:
        """Tell whether it passed with the tree as it is now."""
        return self.trees.get(name) == tree()

    def record(self, name: str, before: str) -> None:
        """Keep that it passed; not where the tree changed while it ran."""
        if before == tree():
            self.trees[name] = before
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.trees, indent=2) + "\n")
