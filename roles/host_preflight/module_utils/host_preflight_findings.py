"""One thing that was looked at, and how a host's errors become one message."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Dict

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Finding = Dict[str, str]
GIB = 1024**3
DAEMON_JSON = "/etc/docker/daemon.json"


def finding(check: str, level: str, found: str, expected: str, remedy: str = "") -> Finding:
    """Return a finding; `remedy` is a command or an edit, and empty where all is well."""
    return {
        "role": "host_preflight",
        "check": check,
        "level": level,
        "found": found,
        "expected": expected,
        "remedy": remedy,
    }


def judged(check: str, good: bool, found: str, expected: str, remedy: str, bad: str = "error") -> Finding:
    """Return `ok` without a remedy, or `bad` with it."""
    return finding(check, "ok" if good else bad, found, expected, "" if good else remedy)


def failure(findings: list[Finding]) -> str:
    """Return the message that fails the host: every error with its remedy; empty when there is none."""
    errors = [each for each in findings if each["level"] == "error"]
    if not errors:
        return ""
    lines = ["this host cannot be bootstrapped as it is; nothing was changed on it"]
    for each in errors:
        lines.append(f"{each['check']}: found {each['found']}, expected {each['expected']}. {each['remedy']}")
    return "\n".join(lines)


def output_of(argv: list[str], timeout: float = 10) -> str | None:
    """Return what a command prints, or None when it is missing, fails or hangs."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read(path: str) -> str:
    """Return a file's text, empty when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def daemon_settings() -> dict[str, Any]:
    """Return daemon.json, empty when it is missing or broken (container_engine says so then, and changes nothing)."""
    try:
        settings = json.loads(read(DAEMON_JSON) or "{}")
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def nearest_existing(path: str) -> Path:
    """Return the path, or its first parent that exists."""
    here = Path(path)
    while not here.exists():
        here = here.parent
    return here
