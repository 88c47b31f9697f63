#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Remove a Compose project: containers, network, the files that the role wrote, and nothing else; or stop it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: project_down
short_description: Remove a Compose project
description:
  - Removes containers and network of the project, then the files that the role wrote. What the containers wrote
    (C(data/)) and files of other people stay, unless O(purge) is set.
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
    description: With C(stopped) its containers end and all stays as it is.
    type: str
    choices: [absent, stopped]
    default: absent
  purge:
    description: Remove the whole folder, data included.
    type: bool
    default: false
  timeout:
    description: Seconds that a container has to end by itself.
    type: int
    default: 30
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Remove the project
  project_down:
    name: tiny-0
    path: /srv/onprem-llm/tiny-0
"""

RETURN = r"""#"""

RECORD = ".rendered.json"
KEPT = ".previous"  # project_keep's


class DownError(Exception):
    """What docker said; for a person."""


def docker(*arguments, limit=60):
    """Run docker; raise DownError with its own words."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit, check=False
    )
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise DownError(f"docker {arguments[0]} failed: {text}")
    return text


def exists(name):
    """Return whether the project has a container or a network."""
    label = f"label=com.docker.compose.project={name}"
    return bool(docker("ps", "--all", "--quiet", "--filter", label) or docker("network", "ls", "-q", "--filter", label))


def own_files(folder):
    """Return the files of the folder that the role wrote."""
    try:
        names = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        names = ["compose.yaml"]
    return [path for path in (folder / name for name in [*names, ".env", "secrets/env", RECORD]) if path.exists()]


def remove_files(folder, purge):
    """Remove our files, then the folders that are empty; return whether there was anything."""
    if not folder.is_dir():
        return False
    if purge:
        shutil.rmtree(str(folder))
        return True
    shutil.rmtree(str(folder / KEPT), ignore_errors=True)
    files = own_files(folder)
    for path in files:
        path.unlink()
    for path in sorted((one for one in folder.rglob("*") if one.is_dir()), reverse=True):
        if path.name != "data" and not any(path.iterdir()):
            path.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()
    return bool(files)


def stop(name, limit, check_mode):
    """End the containers that run; return whether there were any. A restart policy does not bring them back."""
    label = f"label=com.docker.compose.project={name}"
    running = ["status=running", "status=restarting", "status=paused"]
    if not docker("ps", "--quiet", "--filter", label, *(word for one in running for word in ("--filter", one))):
        return False
    if not check_mode:
        docker("compose", "--project-name", name, "stop", "--timeout", str(limit), limit=limit + 120)
    return True


def down(params, check_mode):
    """Remove the project and return whether there was anything to remove."""
    name, folder = params["name"], Path(params["path"])
    running = exists(name)
    if check_mode:
        return running or bool(own_files(folder))
    if running:
        limit = params["timeout"]
        volumes = ["--volumes"] if params["purge"] else []
        # By name alone: an edited or missing compose.yaml must not keep containers alive.
        command = ["compose", "--project-name", name, "down", "--remove-orphans", "--timeout", str(limit), *volumes]
        docker(*command, limit=limit + 120)
    return remove_files(folder, params["purge"]) or running


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["absent", "stopped"], "default": "absent"},
            "purge": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    name, stopping = module.params["name"], module.params["state"] == "stopped"
    try:
        if stopping:
            changed = stop(name, module.params["timeout"], module.check_mode)
        else:
            changed = down(module.params, module.check_mode)
    except (DownError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot {'stop' if stopping else 'remove'} the project {name}: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
