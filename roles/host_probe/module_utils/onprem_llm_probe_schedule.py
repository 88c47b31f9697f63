# SPDX-License-Identifier: Apache-2.0
"""The schedules of a host: what was rendered for each deployment, whether its timer waits, what was decided last."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from pathlib import Path

ROOT = Path("/var/lib/onprem-llm-schedule")
UNITS = Path("/etc/systemd/system")
RUN = Path("/run/onprem-llm/schedule")
TIME_LIMIT = 5.0  # seconds for systemctl
TABLE, TIMER, STATE = "table.json", "timer", "state.json"


def schedules(root=ROOT, units=UNITS):
    """Return {deployment: {files, armed, held, resting, order, decided}}; `decided` is None where nothing was yet."""
    try:
        folders = sorted(one for one in root.iterdir() if (one / TABLE).is_file())
    except OSError:
        return {}
    waiting = _waiting([_timer(one.name) for one in folders])
    rests = resting(root / ".resting")
    return {one.name: dict(schedule(one, units, waiting), resting=rests) for one in folders}


def resting(mark):
    """Tell how all schedules here rest: `drained` until the mark goes, `briefly` for its time; None: they do not."""
    try:
        until = float(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if until == 0:
        return "drained"
    return "briefly" if time.time() < until else None


def schedule(folder, units, waiting):
    """Return one deployment's schedule on this host; `waiting`: the timers that are active."""
    timer = _timer(folder.name)
    sums = {TABLE: _sha256(folder / TABLE), TIMER: _sha256(units / timer)}
    return {
        "files": {name: found for name, found in sums.items() if found},
        "armed": timer in waiting,
        "held": held(folder.name),
        "order": [str(name) for name in _json(folder / TABLE).get("order", [])],
        "decided": _json(folder / STATE) or None,
    }


def held(deployment):
    """Tell whether a change, or one that was cut off, keeps the clock from being followed now."""
    try:
        return time.time() < float((RUN / f"{deployment}.hold").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _timer(deployment):
    return f"onprem-llm-schedule-{deployment}.timer"


def _waiting(timers):
    """Return those of the timers that are active; systemd has no file that says it of timers."""
    if not timers:
        return set()
    words = ["systemctl", "is-active", *timers]
    said = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIME_LIMIT, check=False)
    states = said.stdout.decode("utf-8", "replace").split()
    return {timer for timer, state in zip(timers, states) if state == "active"}


def _json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _sha256(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
