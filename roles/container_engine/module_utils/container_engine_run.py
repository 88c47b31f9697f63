"""Small things that the modules of this role share: what the engine and the journal say, spell a finding."""

from __future__ import annotations

import json
from typing import Any, Dict

from ansible.module_utils.onprem_llm_command import run

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Finding = Dict[str, str]


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


def docker_info() -> dict[str, Any]:
    """Return what the running engine says about itself, empty when none answers."""
    code, text = run(["docker", "info", "--format", "{{json .}}"])
    if code != 0:
        return {}
    # A warning of the client may stand in front.
    start = text.find("{")
    info = json.loads(text[start:]) if start >= 0 else {}
    return info if info.get("ServerVersion") else {}


def last_journal_lines(unit: str, count: int = 6) -> str:
    """Return the end of a unit's journal, for a message; what went well is left out."""
    text = run(["journalctl", "--unit", unit, "--lines", "40", "--no-pager", "--output", "cat"])[1]
    return "\n".join([line for line in text.splitlines() if "level=info" not in line][-count:])
