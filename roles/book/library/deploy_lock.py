#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The lock on deployments: a transient systemd unit, whose name can exist only once."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: deploy_lock
short_description: Take and give back the lock on deployments
description:
  - The lock is the transient unit C(onprem-llm-lock.service). systemd lets a name exist once, keeps the owner as the
    unit's description, ends it after O(seconds), and forgets it at a reboot. No file can be left behind.
  - A lock that somebody else holds is an answer, not a failure.
options:
  action:
    description: Take it, give it back, or take it away from whoever holds it.
    type: str
    choices: [acquire, release, break]
    required: true
  owner:
    description: Who takes it or gives it back; only the owner can give it back.
    type: str
    required: true
  seconds:
    description: After this time it is free again, whatever became of its owner.
    type: int
    default: 14400
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Take the lock
  deploy_lock:
    action: acquire
    owner: root@control pid 12 (deploy tiny)
"""

RETURN = r"""
onprem_llm:
  description:
    - C(lock) has C(acquired) (the caller holds it now), C(owner) and C(age) in seconds of whoever holds it, or held
      it before a C(break); both are null where nobody does or did.
  type: dict
  returned: always
"""

UNIT = "onprem-llm-lock.service"
UNIT_FILE = Path("/run/systemd/transient") / UNIT


class LockError(Exception):
    """What systemd said; for a person."""


def run(*command):
    """Run a command and return (exit code, output with its errors)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def plain(owner):
    """Return the owner in one line of text that systemd keeps as it is."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in owner).split())[:200]


def holder():
    """Return (owner, age in seconds) of the lock, or (None, None)."""
    try:
        text = UNIT_FILE.read_text(encoding="utf-8", errors="replace")
        age = time.time() - UNIT_FILE.stat().st_mtime
    except OSError:
        return None, None
    lines = [line[len("Description=") :] for line in text.splitlines() if line.startswith("Description=")]
    return (lines[-1].replace("%%", "%") if lines else ""), round(max(age, 0.0), 1)


def acquire(owner, seconds):
    """Try to take the lock; return (acquired, changed)."""
    held, _ = holder()
    if held is not None:
        return held == owner, False
    # %-specifiers are not expanded in properties given on a bus, so the owner stays as it is.
    code, text = run(
        *("systemd-run", "--quiet", "--collect", "--unit", UNIT, "--description", owner),
        *("--property", f"RuntimeMaxSec={seconds}", "sleep", "infinity"),
    )
    if code == 0:
        return True, True
    if holder()[0] is not None:  # another run was faster
        return False, False
    raise LockError(f"systemd-run failed: {text}")


def stop():
    """End the unit."""
    code, text = run("systemctl", "stop", UNIT)
    if code != 0 and holder()[0] is not None:
        raise LockError(f"systemctl stop {UNIT} failed: {text}")


def act(action, owner, seconds):
    """Do what is asked; return (lock as it is told to the caller, changed)."""
    if action == "acquire":
        acquired, changed = acquire(owner, seconds)
        held, age = holder()
        return {"acquired": acquired, "owner": held, "age": age}, changed
    held, age = holder()
    lock = {"acquired": False, "owner": held, "age": age}
    if held is None or (action == "release" and held != owner):
        return lock, False
    stop()
    if action == "release":
        lock.update(owner=None, age=None)
    return lock, True


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "choices": ["acquire", "release", "break"], "required": True},
            "owner": {"type": "str", "required": True},
            "seconds": {"type": "int", "default": 14400},
        }
    )
    params = module.params
    try:
        lock, changed = act(params["action"], plain(params["owner"]), params["seconds"])
    except (LockError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot {params['action']} the lock on deployments: {error}")
    module.exit_json(changed=changed, onprem_llm={"lock": lock})


if __name__ == "__main__":
    main()
