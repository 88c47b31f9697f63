# SPDX-License-Identifier: Apache-2.0
"""All of the book that another gateway host needs to stand in for the first: one text there, files again here."""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from pathlib import Path

from ansible.module_utils.onprem_llm_book import BookError
from ansible.module_utils.onprem_llm_write import put

# Below the book's folder: revisions, what counts, events, what was said of hosts and of their lines, the authority.
BOOK_FILES = re.compile(
    r"(?:[a-z0-9][a-z0-9-]{0,39}/(?:[1-9][0-9]*\.(?:yaml|json)|current|rollout\.json)|events\.jsonl|(?:hosts|network)\.json|ca/ca\.(?:crt|key))"
)
# Below the folder of keys. What belongs to one host stays there.
KEY_FILES = re.compile(r"(?!engine\.(?:key|crt)$)[a-z0-9][a-z0-9._-]{0,62}")
FOLDERS = {"book": BOOK_FILES, "keys": KEY_FILES}
# What counts by being there.
GOES = ("/current", "/rollout.json", "network.json")
LARGEST = 64 * 1024 * 1024  # bytes; a copy travels in one piece


def files_of(root, pattern):
    """Return {path: text} of the files below a folder whose path fits."""
    found = {}
    for folder, names, files in os.walk(str(root)):
        names.sort()
        for name in files:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if pattern.fullmatch(relative) and path.is_file() and not path.is_symlink():
                found[relative] = path.read_text(encoding="utf-8")
    return found


def packed(roots):
    """Return the files of {book: folder, keys: folder} as one text."""
    whole = {part: files_of(Path(root), FOLDERS[part]) for part, root in roots.items()}
    text = json.dumps(whole, sort_keys=True).encode("utf-8")
    if len(text) > LARGEST:
        raise BookError(f"the book has {len(text)} bytes, expected {LARGEST} at most; shorten its events.jsonl")
    return base64.b64encode(zlib.compress(text)).decode("ascii")


def unpacked(text):
    """Return {book: {path: text}, keys: {path: text}}; BookError for anything but what `packed` writes."""
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(base64.b64decode(text, validate=True), LARGEST)
        whole = json.loads(plain.decode("utf-8"))
        for part, files in whole.items():
            bad = next((path for path in files if not FOLDERS[part].fullmatch(path)), None)
            if bad is not None or not all(isinstance(one, str) for one in files.values()):
                raise ValueError(f"{bad!r} does not belong into a book")
    except (ValueError, KeyError, AttributeError, TypeError, zlib.error) as error:
        raise BookError(f"this is no copy of a book: {error}") from None
    return whole


def differing(roots, whole):
    """Return [(path, text)] of what the host has not, or otherwise; the text is None for what is to go.

    What counts is the copy's: a deployment that is not current there is not here. Old revisions and keys are kept.
    """
    found = []
    for part, files in whole.items():
        root = Path(roots[part])
        there = files_of(root, FOLDERS[part])
        # `current` comes last: a run that is cut off leaves the old revision to count.
        for path in sorted(files, key=lambda one: (one.endswith("/current"), one)):
            if there.get(path) != files[path]:
                found.append((root / path, files[path]))
        gone = [path for path in there if path.endswith(GOES) and path not in files]
        found += [(root / path, None) for path in sorted(gone)]
    return found


def written(changes):
    """Bring the changes about; files are readable by root alone."""
    for path, text in changes:
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        put(path, text)
