#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep the files of a Compose project before it changes, and put them back when what came after does not run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: project_keep
short_description: Keep the files of a Compose project before it changes, or put them back
description:
  - C(kept) copies the rendered files and the secrets of the project to C(.previous) in its folder, root's alone.
  - C(restored) puts them back in one piece a file, if they are those that O(files) and O(secrets) say; where the
    project has those still, nothing is done. Neither the project nor the copy may be of another change. Nothing is
    started.
options:
  name:
    description: Name of the project.
    type: str
    required: true
  path:
    description: Folder of the project.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [kept, restored]
    default: kept
  files:
    description: Relative path and sha256 of each rendered file that is to be there again.
    type: dict
    default: {}
  secrets:
    description: First 16 digits of the sha256 of its secrets; empty where it had none.
    type: str
    default: ""
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Keep what is there
  project_keep:
    name: tiny-0
    path: /srv/onprem-llm/tiny-0
"""

RETURN = r"""#"""

RECORD = ".rendered.json"
KEPT = ".previous"
COMPOSE_FILE = "compose.yaml"
SECRETS = "secrets/env"
BESIDE = [".env", SECRETS, RECORD]  # written by the role, and not among the rendered files


class KeepError(Exception):
    """What is in the way; for a person."""


def rendered(folder):
    """Return the names of the files that were rendered for a project, as its record says."""
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [COMPOSE_FILE]


def names_in(folder):
    """Return the names of all files that make a project."""
    return [*rendered(folder), *BESIDE]


def standing(folder):
    """Return ({name: sha256} of the rendered files, digest of the secrets or None), as the probe tells them."""

    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in rendered(folder)
        if (folder / name).is_file()
    }
    secrets = folder / SECRETS
    return files, hashlib.sha256(secrets.read_bytes()).hexdigest()[:16] if secrets.is_file() else None


def copy(source, target, names):
    """Copy the files that are there, with their modes; each appears whole or not at all."""
    for name in names:
        if not (source / name).is_file():
            continue
        place = target / name
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = place.with_name(f".new-{place.name}")
        descriptor = os.open(str(new), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write((source / name).read_bytes())
            handle.flush()
            os.fsync(handle.fileno())
        shutil.copystat(str(source / name), str(new))
        new.replace(place)


def same(source, target, names):
    """Tell whether the copies are what they are copies of."""

    def read(path):
        return path.read_bytes() if path.is_file() else None

    return all(read(source / name) == read(target / name) for name in names)


def keep(folder):
    """Copy what is there; return whether that changed the copies."""
    kept, names = folder / KEPT, names_in(folder)
    if not (folder / COMPOSE_FILE).is_file() or same(folder, kept, names):
        return False
    shutil.rmtree(str(kept), ignore_errors=True)
    kept.mkdir(mode=0o700)
    copy(folder, kept, names)
    return True


def restore(folder, files, secrets):
    """Put the copies back where they are what is to be there again; return whether that changed anything."""
    if standing(folder) == (files, secrets):
        return False  # the change never came to it: a copy of an earlier change may lie there
    kept = folder / KEPT
    if standing(kept) != (files, secrets):
        raise KeepError(
            f"neither {folder} nor {kept} holds what ran there before this change; both are left as they are: "
            "deploy it again"
        )
    names = names_in(kept)
    stale = [name for name in names_in(folder) if name not in names and (folder / name).is_file()]
    copy(kept, folder, names)
    for name in stale:
        (folder / name).unlink()
    return True


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["kept", "restored"], "default": "kept"},
            "files": {"type": "dict", "default": {}},
            "secrets": {"type": "str", "default": "", "no_log": False},  # a digest
        }
    )
    params = module.params
    folder = Path(params["path"])
    try:
        if params["state"] == "kept":
            changed = keep(folder)
        else:
            changed = restore(folder, params["files"], params["secrets"] or None)
    except (KeepError, OSError) as error:
        module.fail_json(msg=f"cannot keep or restore the project {params['name']}: {error}")
    # A copy for the case of need is no change of the host.
    module.exit_json(changed=changed and params["state"] == "restored")


if __name__ == "__main__":
    main()
