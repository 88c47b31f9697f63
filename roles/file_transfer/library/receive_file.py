#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The host's half of a transfer: what is there already, and the last step that makes a file appear."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_sums import BLOCK, below, between, is_right, make_between

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
  folder:
    description: Folder on the host that the file stays in; it may be a link, and nothing below it may.
    type: path
  path:
    description: The file, below the folder.
    type: str
  size:
    description: Its size in bytes.
    type: int
  files:
    description: Folder, path, size and sha256 of many files, for C(look_many).
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
    folder: /srv/onprem-llm/weights/tiny
    path: model.safetensors
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

PARTIAL = ".partial"


def chunk_sums(path, chunk):
    """Return the sha256 of each chunk."""
    parts = []
    with path.open("rb") as handle:
        done = 0
        for block in iter(lambda: handle.read(min(BLOCK, chunk)), b""):
            if done % chunk == 0:
                parts.append(hashlib.sha256())
            parts[-1].update(block)
            done += len(block)
    return [part.hexdigest() for part in parts]


def partial(folder, name):
    """Return where the file grows. Raises ValueError where that is a link, or would be waited on for ever."""
    between(folder, name)
    path = below(folder, name)
    growing = path.with_name(path.name + PARTIAL)
    if os.path.lexists(str(growing)) and not stat.S_ISREG(growing.lstat().st_mode):
        raise ValueError(f"{growing} is no plain file: remove it")
    return growing


def look(folder, wanted, chunk):
    """Return what of the file is there; its folder is made."""
    growing = partial(folder, wanted["path"])
    make_between(folder, wanted["path"])
    present = bool(wanted["sha256"]) and is_right(folder, wanted)
    chunks = chunk_sums(growing, chunk) if not present and growing.exists() else []
    return {"present": present, "chunks": chunks, "python": sys.executable}


def look_many(files):
    """Return which of several files are there as they should be; the folders of all are made."""
    there = []
    for one in files:
        folder = Path(one["folder"])
        partial(folder, one["path"])
        make_between(folder, one["path"])
        if is_right(folder, one):
            there.append(str(folder / one["path"]))
    return {"paths": there, "python": sys.executable}


def finish(folder, wanted, mtime_ns):
    """Cut off what an earlier, longer partial file left, flush to the disk, date it, and give it its name."""
    growing = partial(folder, wanted["path"])
    with growing.open("ab") as handle:  # makes an empty file too
        handle.truncate(wanted["size"])
        os.fsync(handle.fileno())
    growing.chmod(0o644)
    os.utime(str(growing), ns=(mtime_ns, mtime_ns))
    growing.replace(folder / wanted["path"])
    return {"present": True}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["look", "look_many", "finish"], "required": True},
            "folder": {"type": "path"},
            "path": {"type": "str"},
            "size": {"type": "int"},
            "sha256": {"type": "str"},
            "chunk": {"type": "int"},
            "mtime_ns": {"type": "int"},
            "files": {"type": "list", "elements": "dict", "default": []},
        },
        required_if=[
            ("step", "look", ("folder", "path", "size", "chunk")),
            ("step", "finish", ("folder", "path", "size", "mtime_ns")),
        ],
    )
    wanted = module.params
    folder = Path(wanted["folder"] or "/")
    try:
        if wanted["step"] == "look_many":
            answer = look_many(wanted["files"])
        elif wanted["step"] == "look":
            answer = look(folder, wanted, wanted["chunk"])
        else:
            answer = finish(folder, wanted, wanted["mtime_ns"])
    except (OSError, ValueError) as error:
        what = "files" if wanted["step"] == "look_many" else folder / wanted["path"]
        module.fail_json(msg=f"cannot receive {what}: {error}", invocation={})
    module.exit_json(changed=wanted["step"] == "finish", invocation={}, **answer)


if __name__ == "__main__":
    main()
