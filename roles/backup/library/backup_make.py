#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Write a gateway host's book, keys, authority and page into one archive."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import sqlite3
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_backup import (
    BLOCK,
    MANIFEST,
    VERSION,
    BackupError,
    Writer,
    folders,
    names_of,
    side_files,
)

DOCUMENTATION = r"""
module: backup_make
short_description: Write what only the gateway host has into one archive
description:
  - The book (revisions, events, what is said of hosts), client keys and their usage, the certificate authority with its
    key, the engines' and internal keys, and the page's accounts and chats. SQLite databases are copied as of one
    moment, while they are in use.
  - The archive is 0600 in a folder 0700. C(manifest.json) in it has the sha256 of every file.
options:
  path:
    description: The archive to write; its folder is made.
    type: path
    required: true
  book:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  data_root:
    description: Folder of the projects and of the engines' keys.
    type: path
    default: /srv/onprem-llm
  parts:
    description: What goes into it.
    type: list
    elements: str
    choices: [book, secrets, ui]
    default: [book, secrets, ui]
  about:
    description: What else the manifest says (host, version).
    type: dict
    default: {}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Save what only this host has
  backup_make:
    path: /srv/onprem-llm/backup/now.tar.gz
"""

RETURN = r"""
onprem_llm:
  description: C(backup) with C(path), C(size), C(sha256) of the archive and C(files), their number by part.
  type: dict
  returned: success
"""


def write(params):
    """Write the archive; return the manifest."""
    path = Path(params["path"])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    where = folders(params["book"], params["data_root"])
    handle = os.fdopen(os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    with handle, tarfile.open(fileobj=handle, mode="w:gz", compresslevel=3) as archive:
        writer = Writer(archive, path.with_name(f"{path.name}.database"))
        for part in params["parts"]:
            names = names_of(part, where[part])
            for name in sorted(set(names) - side_files(names)):
                writer.add(part, where[part], name)
        made = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        about = {"version": VERSION, "made": made, "parts": params["parts"], "files": writer.files}
        manifest = {**params["about"], **about}
        text = json.dumps(manifest, sort_keys=True).encode("utf-8")
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(text), 0o600
        archive.addfile(info, io.BytesIO(text))
    return manifest


def digest(path):
    """Return the sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as handle:
        for block in iter(lambda: handle.read(BLOCK), b""):
            found.update(block)
    return found.hexdigest()


def main():
    """Run as an Ansible module."""
    parts = {"type": "list", "elements": "str", "choices": ["book", "secrets", "ui"]}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "book": {"type": "path", "default": "/var/lib/onprem-llm"},
            "data_root": {"type": "path", "default": "/srv/onprem-llm"},
            "parts": {**parts, "default": ["book", "secrets", "ui"]},
            "about": {"type": "dict", "default": {}},
        }
    )
    path = Path(module.params["path"])
    try:
        manifest = write(module.params)
        count = {part: sum(name.startswith(f"{part}/") for name in manifest["files"]) for part in manifest["parts"]}
        found = {"path": str(path), "size": path.stat().st_size, "sha256": digest(path), "files": count}
    except (BackupError, OSError, sqlite3.Error, tarfile.TarError) as error:
        if path.exists():
            path.unlink()
        module.fail_json(msg=f"cannot write the backup {path}: {error}", invocation={})
    module.exit_json(changed=True, invocation={}, onprem_llm={"backup": found})


if __name__ == "__main__":
    main()
