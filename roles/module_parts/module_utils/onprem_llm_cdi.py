# SPDX-License-Identifier: Apache-2.0
"""Reading CDI specifications of NVIDIA's GPUs: their files, and what of the host they name that is not there."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

KIND = "nvidia.com/gpu"
SUFFIXES = (".yaml", ".yml", ".json")
FOLDERS = ("/etc/cdi", "/var/run/cdi")
# A key with its value in block style, as nvidia-ctk and every YAML library write it.
LINE = re.compile(r"^(?P<indent> *)(?P<dash>- +)?[\"']?(?P<key>[A-Za-z]+)[\"']?: *[\"']?(?P<value>[^\"']*?)[\"']? *$")


def specifications(folders):
    """Return [(path, text)] of the specifications of NVIDIA's GPUs, sorted by path."""
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in sorted(Path(folder).iterdir()):
                text = path.read_text(encoding="utf-8", errors="replace") if path.suffix in SUFFIXES else ""
                if KIND in text:
                    found.append((path, text))
    return found


def missing(folders, root="/"):
    """Return what specifications of the host name and the host does not have, sorted.

    A container that is to get such a device does not start: libraries have the driver's version in their names, and go
    with it; a device file goes with its card.
    """
    named = {path for _, text in specifications(folders) for path in host_paths(text)}
    return sorted(path for path in named if not (Path(root) / path.lstrip("/")).exists())


def host_paths(text):
    """Return the paths on the host that a specification names: mounts, devices, hooks. Unreadable text names none."""
    try:
        mappings = _of_json(json.loads(text)) if text.lstrip().startswith("{") else _of_yaml(text)
    except ValueError:
        return []
    # A device's hostPath is left out where it is that in the container.
    paths = (one.get("hostPath") or one.get("path") or "" for one in mappings)
    return sorted({path for path in paths if path.startswith("/")})


def _of_json(value):
    found = []
    if isinstance(value, dict):
        found.append({key: one for key, one in value.items() if isinstance(one, str)})
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        found += _of_json(one)
    return found


def _of_yaml(text):
    """Return the mappings of YAML in block style as {key: scalar}; hosts' Python has no YAML library."""
    found, open_ones = [], {}
    for match in filter(None, map(LINE.match, text.splitlines())):
        column = len(match.group("indent") + (match.group("dash") or ""))
        # Whatever is deeper has ended, and a dash begins another mapping at its own depth.
        open_ones = {depth: one for depth, one in open_ones.items() if depth <= column}
        if match.group("dash") or column not in open_ones:
            open_ones[column] = {}
            found.append(open_ones[column])
        open_ones[column][match.group("key")] = match.group("value")
    return found
