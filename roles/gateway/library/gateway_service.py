#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Install and run a service of the gateway host: one task where copies would be many."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: gateway_service
short_description: Install and run a service of the gateway host
description:
  - Writes the service's program and unit where they differ, and starts it where it does not run or was changed.
  - A gateway host may serve models too, and C(systemctl daemon-reload) can take running containers their GPUs
    (NVIDIA/nvidia-container-toolkit#48). So systemd reads its units anew only where it holds an older text of this one.
options:
  files:
    description: Name and text of each file of the program; one without a suffix can be executed.
    type: dict
    required: true
  name:
    description: Name of the unit.
    type: str
    required: true
  unit:
    description: Text of the unit.
    type: str
    required: true
  folder:
    description: Folder of the program.
    type: path
    default: /usr/local/lib/onprem-llm
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Count
  gateway_service:
    name: onprem-llm-usage.service
    files: {onprem-llm-usage: "#!/bin/sh"}
    unit: |
      [Service]
      ExecStart=/usr/local/lib/onprem-llm/onprem-llm-usage
"""

RETURN = r"""#"""

UNITS = Path("/etc/systemd/system")
WANTED_BY = UNITS / "multi-user.target.wants"


class ServiceError(Exception):
    """What systemd said; for a person."""


def systemctl(*words):
    """Run systemctl and return (exit code, output)."""
    done = subprocess.run(
        ["systemctl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def update(path, text, mode, check_mode):
    """Write a file; return whether it differed."""
    try:
        if path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == mode:
            return False
    except (OSError, ValueError):
        pass
    if not check_mode:
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, text, mode)
    return True


def run(params, check_mode):
    """Return whether anything differed."""
    program = [
        update(Path(params["folder"], name), text, 0o644 if "." in name else 0o755, check_mode)
        for name, text in sorted(params["files"].items())
    ]
    name, path = params["name"], UNITS / params["name"]
    unit = update(path, params["unit"], 0o644, check_mode)
    active = systemctl("is-active", "--quiet", name)[0] == 0
    link = WANTED_BY / name  # what `systemctl enable` makes, which reloads
    changed = any(program) or unit or not active or not link.is_symlink()
    if not changed or check_mode:
        return changed
    if systemctl("show", "--property=NeedDaemonReload", name)[1].endswith("=yes"):
        act("daemon-reload")
    if not link.is_symlink():
        link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        link.symlink_to(path)
    act("restart" if active else "start", name)
    return True


def act(*words):
    """Run systemctl; ServiceError with its words where it fails."""
    code, said = systemctl(*words)
    if code != 0:
        raise ServiceError(f"systemctl {' '.join(words)} failed: {said}; on the host: journalctl -u {words[-1]}")


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "required": True},
            "name": {"type": "str", "required": True},
            "unit": {"type": "str", "required": True},
            "folder": {"type": "path", "default": "/usr/local/lib/onprem-llm"},
        },
        supports_check_mode=True,
    )
    try:
        changed = run(module.params, module.check_mode)
    except (ServiceError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot run {module.params['name']}: {error}", invocation={})
    module.exit_json(changed=changed, invocation={})


if __name__ == "__main__":
    main()
