#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The host's half of a transfer: what is there already, and the last step that makes a file appear."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: receive_file
short_description: Look at a file that is to be received, or finish it
description: Called by the action plugin M(send_files), which sends the chunks between C(look) and C(finish).
options:
  step:
    description: Look at what is there, or turn the complete partial file into the file. C(look_many) looks at O(files).
    type: str
    choices: [look, look_many, finish]
    required: true
  path:
    description: The file on the host.
    type: path
  size:
    description: Its size in bytes.
    type: int
  files:
    description: Path, size and sha256 of many files, for C(look_many).
    type: list
    elements: dict
    default: []
  sha256:
    description: Its sha256, for C(look).
    type: str
  chunk:
    description: Bytes of a chunk.
    type: int
  mtime_ns:
    description: Its date of change in nanoseconds, for C(finish).
    type: int
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Look at a file
  receive_file:
    step: look
    path: /srv/onprem-llm/weights/tiny/model.safetensors
    size: 1024
    sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
    chunk: 67108864
"""

RETURN = r"""
paths:
  description: The files that are there with their sizes and sha256.
  type: list
  returned: look_many
present:
  description: Whether the file is there with its size and sha256.
  type: bool
  returned: always
chunks:
  description: sha256 of each chunk of the partial file.
  type: list
  returned: look
python:
  description: The interpreter that runs modules on this host.
  type: str
  returned: look
"""

BLOCK = 1024 * 1024  # bytes that are read at a time


def digests(path, chunk):
    """Return (sha256 of the file, [sha256 of each chunk])."""
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as handle:
        done = 0
        for block in iter(lambda: handle.read(min(BLOCK, chunk)), b""):
            if done % chunk == 0:
                parts.append(hashlib.sha256())
            whole.update(block)
            parts[-1].update(block)
            done += len(block)
    return whole.hexdigest(), [part.hexdigest() for part in parts]


def partial(path):
    """Return where the file grows."""
    return path.with_name(path.name + ".partial")


def look(path, size, sha256, chunk):
    """Return what of the file is there."""
    found = {"present": False, "chunks": [], "python": sys.executable}
    if sha256 and path.is_file() and path.stat().st_size == size:
        found["present"] = digests(path, chunk)[0] == sha256
    if not found["present"] and partial(path).is_file():
        found["chunks"] = digests(partial(path), chunk)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    return found


def look_many(files):
    """Return which of several files are there as they should be; a link is none of them."""
    there = []
    for one in files:
        path = Path(one["path"])
        whole = path.is_file() and not path.is_symlink() and path.stat().st_size == one["size"]
        if whole and digests(path, BLOCK)[0] == one["sha256"]:
            there.append(one["path"])
    return {"paths": there, "python": sys.executable}


def finish(path, size, mtime_ns):
    """Cut off what an earlier, longer partial file left, flush to the disk, date it, and give it its name."""
    growing = partial(path)
    with growing.open("ab") as handle:  # makes an empty file too
        handle.truncate(size)
        os.fsync(handle.fileno())
    growing.chmod(0o644)
    os.utime(str(growing), ns=(mtime_ns, mtime_ns))
    growing.replace(path)
    return {"present": True}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["look", "look_many", "finish"], "required": True},
            "path": {"type": "path"},
            "size": {"type": "int"},
            "sha256": {"type": "str"},
            "chunk": {"type": "int"},
            "mtime_ns": {"type": "int"},
            "files": {"type": "list", "elements": "dict", "default": []},
        },
        required_if=[("step", "look", ("path", "size", "chunk")), ("step", "finish", ("path", "size", "mtime_ns"))],
    )
    wanted = module.params
    path = Path(wanted["path"] or "/")
    try:
        if wanted["step"] == "look_many":
            answer = look_many(wanted["files"])
        elif wanted["step"] == "look":
            answer = look(path, wanted["size"], wanted["sha256"], wanted["chunk"])
        else:
            answer = finish(path, wanted["size"], wanted["mtime_ns"])
    except OSError as error:
        module.fail_json(msg=f"cannot receive {path}: {error}", invocation={})
    module.exit_json(changed=wanted["step"] == "finish", invocation={}, **answer)


if __name__ == "__main__":
    main()
