# SPDX-License-Identifier: Apache-2.0
"""What the modules of the book share: the time, names, what is under way, and events.jsonl."""

from __future__ import annotations

import datetime
import json
import os
import re
from pathlib import Path

from ansible.module_utils.onprem_llm_write import put

NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}$")
EVENTS = "events.jsonl"
ROLLOUT = "rollout.json"  # below a deployment: revisions under way, and the last number that was given
LONGEST_MESSAGE = 2000  # characters; the whole story of a failure is on the terminal of whoever ran it


class BookError(Exception):
    """What is wrong with what is to be recorded or read; for a person."""


def now():
    """Return the host's time, to the second, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_name(name):
    """Raise BookError for what cannot be a deployment: it becomes the name of a folder."""
    if not NAME.fullmatch(name):
        raise BookError(f"{name!r} cannot be the name of a deployment")


def text_of(path):
    """Return a file's text, or None."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def json_of(path):
    """Return the JSON object in a file; an empty one where there is none."""
    try:
        value = json.loads(text_of(path) or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def note_rollout(folder, pending, last, check_mode):
    """Write which revisions are under way and the last number given, which never falls; return whether that is new."""
    known = json_of(folder / ROLLOUT)
    wanted = {"pending": sorted(pending), "last": max(last, known.get("last", 0))}
    if known == wanted:
        return False
    if not check_mode:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        put(folder / ROLLOUT, json.dumps(wanted, sort_keys=True) + "\n")
    return True


def append_event(book, event):
    """Add a line to events.jsonl. What an event has: at, by, action, deployment, revision, result, message."""
    line = {"at": now(), "result": "ok", **event}
    line["message"] = str(line.get("message") or "")[:LONGEST_MESSAGE]
    path = Path(book, EVENTS)
    descriptor = os.open(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as handle:
        # One write: two runs that append at once do not mix their lines.
        handle.write((_torn(path) + json.dumps(line, sort_keys=True) + "\n").encode("utf-8"))


def _torn(path):
    """Return the newline that a line lacks which a power failure cut off, so that the next one is whole."""
    with path.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(size - 1, 0))
        return "\n" if handle.read(1) not in (b"", b"\n") else ""
