"""Small things that the modules of this role share: run a command, read a version, spell a finding."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any, Dict, Tuple

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Finding = Dict[str, str]
Version = Tuple[int, ...]


def finding(check: str, level: str, found: str, expected: str, remedy: str = "") -> Finding:
    """Return a finding as every role of bootstrap spells it."""
    return {
        "role": "container_engine",
        "check": check,
        "level": level,
        "found": found,
        "expected": expected,
        "remedy": remedy,
    }


def run(argv: list[str], timeout: float = 30) -> tuple[int, str]:
    """Return the exit code and what was printed on both channels; 127 when it is missing, 124 when it hangs."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        return 127, f"{argv[0]}: not found"
    except subprocess.TimeoutExpired:
        return 124, f"{' '.join(argv)}: no end after {timeout:g} s"
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def docker_info() -> dict[str, Any]:
    """Return what the running engine says about itself, empty when none answers."""
    code, text = run(["docker", "info", "--format", "{{json .}}"])
    if code != 0:
        return {}
    # A warning of the client may stand in front.
    start = text.find("{")
    info = json.loads(text[start:]) if start >= 0 else {}
    return info if info.get("ServerVersion") else {}


def numbers(version: str) -> Version:
    """Return (26, 1, 5) for `Docker version 26.1.5+dfsg1, build a72d7cd`, and () where there is no version."""
    match = re.search(r"\d+(\.\d+)+", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def dotted(version: Version) -> str:
    """Return `26.1.5`, and `none` for ()."""
    return ".".join(str(part) for part in version) or "none"


def last_journal_lines(unit: str, count: int = 6) -> str:
    """Return the end of a unit's journal, for a message; what went well is left out."""
    text = run(["journalctl", "--unit", unit, "--lines", "40", "--no-pager", "--output", "cat"])[1]
    return "\n".join([line for line in text.splitlines() if "level=info" not in line][-count:])
