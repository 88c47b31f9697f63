#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep the files of a Compose project that runs, and put them back when what came after does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: project_keep
short_description: Keep the files of a Compose project that runs, or put them back
description:
  - C(kept) copies the rendered files and the secrets of the project to C(.previous) in its folder, root's alone, if its
    containers run and none is unhealthy. What does not run is not worth going back to, and what was kept before stays.
  - C(restored) puts them back in one piece a file. Nothing is started.
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
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Keep what runs
  project_keep:
    name: tiny-0
    path: /srv/onprem-llm/tiny-0
"""

RETURN = r"""#"""

RECORD = ".rendered.json"
KEPT = ".previous"
BESIDE = [".env", "secrets/env", RECORD]  # written by the role, and not among the rendered files


class KeepError(Exception):
    """What is in the way; for a person."""


def names_in(folder):
    """Return the names of the files that make a project, as its record says."""
    try:
        return [*json.loads((folder / RECORD).read_text(encoding="utf-8")), *BESIDE]
    except (OSError, ValueError):
        return []


def runs(project):
    """Tell whether the project's containers run and none of them is known to be ill."""
    label = f"label=com.docker.compose.project={project}"
    shown = ["--all", "--filter", label, "--format", "{{.State}} {{.Status}}"]
    done = subprocess.run(
        ["docker", "ps", *shown], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0:
        raise KeepError(f"docker ps failed: {' '.join(lines)}")
    return bool(lines) and all(
        line.startswith("running ") and "(unhealthy)" not in line and "(health: starting)" not in line for line in lines
    )


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


def keep(project, folder):
    """Copy what runs; return whether that changed the copies."""
    names = names_in(folder)
    kept = folder / KEPT
    if not names or same(folder, kept, names) or not runs(project):
        return False
    shutil.rmtree(str(kept), ignore_errors=True)
    kept.mkdir(mode=0o700)
    copy(folder, kept, names)
    return True


def restore(project, folder):
    """Put the copies back; return whether that changed anything."""
    kept = folder / KEPT
    names = names_in(kept)
    if not names:
        raise KeepError(f"nothing of {project} was kept in {kept}: it did not run before")
    stale = [name for name in names_in(folder) if name not in names and (folder / name).is_file()]
    if same(kept, folder, names) and not stale:
        return False
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
        }
    )
    params = module.params
    act = keep if params["state"] == "kept" else restore
    try:
        changed = act(params["name"], Path(params["path"]))
    except (KeepError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot keep or restore the project {params['name']}: {error}")
    # A copy for the case of need is no change of the host.
    module.exit_json(changed=changed and params["state"] == "restored")


if __name__ == "__main__":
    main()
