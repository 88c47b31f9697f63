# SPDX-License-Identifier: Apache-2.0
"""The kernel's log of this boot, as far as GPUs speak in it."""

from __future__ import annotations

import re
import subprocess
import threading
from typing import Any, Iterable

from ansible.module_utils.gpu_check_bus import bus_id

TIME_LIMIT = 10.0  # seconds; a journal on a slow disk is left out then
COMMANDS = (
    ["journalctl", "--dmesg", "--boot", "--output=short-unix", "--no-pager", "--quiet"],
    ["dmesg", "--color=never"],
)
# Continuation lines of a message are indented and do not name the driver again.
OF_GPUS = re.compile(
    r"NVRM|nvidia|nouveau|nova|SXid|[Ss]ecure ?boot|[Ll]ockdown|is rejected|module verification|^\s+\S"
)
STAMP = re.compile(r"^\[?\s*(\d+\.\d+)\]?\s")
XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9A-Fa-f:.]+)\): (\d+),?\s*(.*)")
SXID = re.compile(r"SXid \(PCI:([0-9A-Fa-f:.]+)\): (\d+),\s*(Fatal|Non-fatal)?,?\s*(.*)", re.IGNORECASE)
PLACE = r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}"
# One message of three lines, or one line; no other card is named between.
FALLEN = re.compile(rf"({PLACE})(?:(?!{PLACE}).){{0,300}}?fallen off the bus", re.DOTALL)
NOT_STARTED = re.compile(rf"NVRM: GPU ({PLACE})\.\d: RmInitAdapter failed")
MOST_LINES = 5000
EPOCH = 1_000_000_000  # less is a number of seconds since boot


def lines() -> list[str] | None:
    """Return the lines that concern GPUs, oldest first; None where no log can be read."""
    read = None
    for command in COMMANDS:
        found = _filtered(command)
        if found:
            return found
        read = read if found is None else found
    return read


def _filtered(command: list[str]) -> list[str] | None:
    """Run the command and keep what matters of its output as it comes: a boot's log can be hundreds of megabytes."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except OSError:
        return None
    watch = threading.Timer(TIME_LIMIT, process.kill)
    watch.start()
    kept: list[str] = []
    for raw in process.stdout or ():
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if OF_GPUS.search(line):
            kept.append(line[:400])
            # The newest matter most.
            del kept[:-MOST_LINES]
    watch.cancel()
    return kept if process.wait() == 0 else None


def at(line: str, booted: float) -> float | None:
    """Return when a line was written, in seconds since 1970; dmesg counts from `booted`."""
    found = STAMP.match(line)
    if found is None:
        return None
    seconds = float(found.group(1))
    return seconds if seconds > EPOCH else booted + seconds


def xids(log: Iterable[str], booted: float) -> list[dict[str, Any]]:
    """Return Xids and NVSwitches' SXids, newest first: number, place, how often, when last, what the driver said."""
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for line in log:
        one = _xid(line)
        if one is None:
            continue
        entry = found.setdefault((one["kind"], one["code"], one["bus_id"]), {**one, "count": 0, "last": None})
        entry.update(one, count=entry["count"] + 1, last=at(line, booted) or entry["last"])
    return sorted(found.values(), key=lambda one: -(one["last"] or 0))


def fallen(log: Iterable[str]) -> set[str | None]:
    """Return the cards of which the kernel says that they have fallen off the bus."""
    return {bus_id(place) for place in FALLEN.findall("\n".join(log))}


def not_started(log: Iterable[str]) -> set[str | None]:
    """Return the cards that the driver could not start."""
    return {bus_id(place) for place in NOT_STARTED.findall("\n".join(log))}


def _xid(line: str) -> dict[str, Any] | None:
    found = XID.search(line)
    if found:
        place, code, text = found.groups()
        return {"kind": "Xid", "code": int(code), "bus_id": bus_id(place) or place, "text": text[:200], "fatal": None}
    found = SXID.search(line)
    if found:
        place, code, fatal, text = found.groups()
        fatal = bool(fatal) and fatal.lower() == "fatal"
        return {"kind": "SXid", "code": int(code), "bus_id": bus_id(place) or place, "text": text[:200], "fatal": fatal}
    return None
