#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Write a Compose project's rendered files, once Compose has said that it can read them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: project_files
short_description: Write a Compose project's rendered files
description:
  - Writes the files below O(path), all or none, after C(docker compose config) has accepted them.
  - Files that an earlier run wrote and that are no longer rendered are removed. Nothing else in the folder is touched.
  - An action plugin of the same name reads the files on the control host and passes them as O(contents).
options:
  path:
    description: Folder of the project on the host.
    type: path
    required: true
  source:
    description: Folder of the rendered files on the control host; read by the action plugin.
    type: path
  files:
    description: Relative path and sha256 of each file; the action plugin refuses a file with another digest.
    type: dict
    required: true
  contents:
    description: Relative path and content in base64 of each file; set by the action plugin.
    type: dict
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Write the project's files
  project_files:
    path: /srv/onprem-llm/tiny-0
    source: /tmp/plan/files/host-1/tiny-0
    files:
      compose.yaml: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
"""

RETURN = r"""
written:
  description: Files that were written.
  type: list
  returned: always
removed:
  description: Files that are no longer rendered and were removed.
  type: list
  returned: always
"""

COMPOSE_FILE = "compose.yaml"
RECORD = ".rendered.json"  # the names of the files written; the probe hashes these
FILE_MODE = 0o644
FOLDER_MODE = 0o755


class ProjectError(Exception):
    """What is wrong and where; for a person."""


def check_names(names):
    """Refuse names that leave the folder or that the role writes itself."""
    for name in names:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or parts[0] in ("secrets", "data", ".env", RECORD):
            raise ProjectError(
                f"a project may not have a file named {name!r}: it must be a plain path inside the folder"
            )
    if COMPOSE_FILE not in names:
        raise ProjectError(f"the project has no {COMPOSE_FILE}; files: {', '.join(sorted(names)) or 'none'}")


def recorded(folder):
    """Return the names of the files that an earlier run wrote."""
    try:
        return set(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()


def differing(folder, wanted):
    """Return the names of the files that are absent or have another content or mode."""
    found = []
    for name, content in sorted(wanted.items()):
        path = folder / name
        try:
            same = path.read_bytes() == content and path.stat().st_mode & 0o777 == FILE_MODE
        except OSError:
            same = False
        if not same:
            found.append(name)
    return found


def write(path, content):
    """Write and flush one file."""
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    path.chmod(FILE_MODE)


def validate(folder, staged):
    """Ask Compose whether it can read the staged files as a project in `folder`."""
    command = ["docker", "compose", "--project-directory", str(folder), "-f", str(staged / COMPOSE_FILE)]
    done = subprocess.run(
        [*command, "config", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip().replace(str(staged), str(folder))
        raise ProjectError(
            f"docker compose refuses {folder / COMPOSE_FILE}; the files there were left as they are:\n{said}"
        )


def replace(folder, wanted, stale):
    """Bring the files into the folder: staged beside it, validated, then renamed; compose.yaml comes last."""
    staged = Path(tempfile.mkdtemp(prefix=".new-", dir=str(folder)))
    try:
        for name, content in wanted.items():
            write(staged / name, content)
        validate(folder, staged)
        for name in sorted(wanted, key=lambda one: one == COMPOSE_FILE):
            (folder / name).parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            (staged / name).replace(folder / name)
        for name in stale:
            if (folder / name).exists():
                (folder / name).unlink()
        write(staged / RECORD, json.dumps(sorted(wanted)).encode())
        (staged / RECORD).replace(folder / RECORD)
    finally:
        shutil.rmtree(str(staged), ignore_errors=True)


def run(folder, wanted, check_mode):
    """Return (written, removed) names."""
    check_names(wanted)
    before = recorded(folder)
    stale = sorted(name for name in before - set(wanted) if (folder / name).exists())
    written = differing(folder, wanted)
    if (written or stale or before != set(wanted)) and not check_mode:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for left in folder.glob(".new-*"):  # from a run that was cut off
            shutil.rmtree(str(left), ignore_errors=True)
        replace(folder, wanted, stale)
    return written, stale


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "source": {"type": "path"},
            "files": {"type": "dict", "required": True},
            "contents": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    folder = Path(module.params["path"])
    try:
        wanted = {name: base64.b64decode(text) for name, text in module.params["contents"].items()}
        written, removed = run(folder, wanted, module.check_mode)
    except ProjectError as error:
        module.fail_json(msg=str(error), invocation={})
    except (OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot write the project {folder}: {error}", invocation={})
    module.exit_json(changed=bool(written or removed), written=written, removed=removed, invocation={})


if __name__ == "__main__":
    main()
