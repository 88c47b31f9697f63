#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Give a host its part in a deployment's schedule, hold it while replicas change, or take it away."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_schedule_lock import wait_for
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: schedule_timer
short_description: Write, hold or remove a deployment's schedule on a host
description:
  - C(present) writes the table and the timer, has both units start at boot, and runs the service once.
  - C(held) keeps the host from starting and stopping replicas by the clock for O(seconds), and comes back once what it
    had begun is done. C(released) ends that, and runs the service once.
  - C(absent) removes all of it. What runs, runs on.
  - A calendar that this host's systemd does not take is an error, and nothing is changed then.
options:
  deployment:
    description: Name of the deployment.
    type: str
    required: true
  state:
    description: What to do.
    type: str
    choices: [present, held, released, absent]
    default: present
  source:
    description: Folder of the rendered files on the control host.
    type: path
  files:
    description: Name and sha256 of each, C(table.json) and C(timer).
    type: dict
    default: {}
  service:
    description: Text of the service's unit.
    type: str
    default: ""
  seconds:
    description: How long a hold counts at most; asked of C(held) alone.
    type: int
    default: 0
  planned:
    description: C(off), the replicas that the clock had switched off when the change was planned; C(held) fails where
      others are by now.
    type: dict
    default: {}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Hold the schedule
  schedule_timer:
    deployment: tiny
    state: held
    seconds: 14400
"""

RETURN = r"""#"""

ROOT = Path("/var/lib/onprem-llm-schedule")
RUN = Path("/run/onprem-llm/schedule")
UNITS = Path("/etc/systemd/system")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class TimerError(Exception):
    """What is in the way; for a person."""


def systemctl(*words):
    """Run systemctl and return (exit code, output)."""
    done = subprocess.run(
        ["systemctl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
    )
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def act(*words):
    """Run systemctl; TimerError with its words where it fails."""
    code, said = systemctl(*words)
    if code != 0:
        raise TimerError(f"systemctl {' '.join(words)} failed: {said}; on the host: journalctl -u {words[-1]}")


def check_calendars(text):
    """Ask systemd whether it takes each calendar of a timer."""
    for line in re.findall(r"^OnCalendar=(.*)$", text, re.MULTILINE):
        done = subprocess.run(
            ["systemd-analyze", "calendar", line],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            said = done.stdout.decode("utf-8", "replace").strip()
            raise TimerError(
                f"systemd here does not take {line!r}: {said}; where it is the time zone, install tzdata on this host "
                "or name another one (timezone in model.yaml)"
            )


def update(path, text):
    """Write a file; return whether it differed."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except OSError:
        pass
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    put(path, text, 0o644)
    return True


def links(units):
    """Return {link: unit} of what `systemctl enable` would make, which reloads."""
    service, timer = units
    return {
        UNITS / "multi-user.target.wants" / service: UNITS / service,
        UNITS / "timers.target.wants" / timer: UNITS / timer,
    }


def present(name, units, texts, service):
    """Write what differs, start the timer, and run the service; return whether anything differed."""
    check_calendars(texts["timer"])
    service_unit, timer_unit = units
    table = update(ROOT / name / "table.json", texts["table.json"])
    timer = update(UNITS / timer_unit, texts["timer"])
    changed = [table, timer, update(UNITS / service_unit, service)]
    for link, unit in links(units).items():
        if not link.is_symlink():
            link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            link.symlink_to(unit)
            changed.append(True)
    # A unit that is new needs no reload, which can take running containers' GPUs away (role healer says more).
    if any(systemctl("show", "--property=NeedDaemonReload", unit)[1].endswith("=yes") for unit in units):
        act("daemon-reload")
    active = systemctl("is-active", "--quiet", timer_unit)[0] == 0
    if timer or not active:
        act("restart", timer_unit)
    if any(changed) or not active:
        # What runs has read the table that was.
        act("restart", "--no-block", service_unit)
    return any(changed) or not active


def hold(name, seconds, planned, units):
    """Keep the program from beginning anything, and wait for what it had begun.

    `planned`: `off`, who was off when the change was planned; TimerError where others are by now, with nothing held.
    """
    if seconds < 1:
        raise TimerError(f"found seconds: {seconds}, expected 1 or more")
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    put(RUN / f"{name}.hold", f"{time.time() + seconds:.0f}\n", 0o644)
    if not wait_for(RUN / f"{name}.lock"):
        raise TimerError(f"the schedule of {name} is still starting or stopping a replica")
    if "off" not in planned:
        return
    off, expected = json.loads((ROOT / name / "state.json").read_text(encoding="utf-8"))["off"], planned["off"]
    if sorted(off) != sorted(expected):
        release(name, units)
        raise TimerError(
            f"found {', '.join(off) or 'none'} off by the clock, expected {', '.join(expected) or 'none'}, as when the "
            "change was planned: an entry has come into force since; nothing was changed: run the same command again"
        )


def release(name, units):
    """End a hold, and have done what the table says by now.

    The hold goes last: what is started waits for that, and where it cannot be started the next try finds the hold.
    """
    held = RUN / f"{name}.hold"
    if not held.exists():
        return
    if (ROOT / name / "table.json").is_file():
        act("start", "--no-block", units[0])
    held.unlink()


def absent(name, units):
    """Stop and remove everything; return whether there was anything."""
    found = [path for path in (ROOT / name, *links(units), *(UNITS / unit for unit in units)) if exists(path)]
    for unit in reversed(units):
        if exists(UNITS / unit):
            act("stop", unit)
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()
    for suffix in ("hold", "lock"):
        left = RUN / f"{name}.{suffix}"
        if left.exists():
            left.unlink()
    if ROOT.is_dir() and not any(one.is_dir() for one in ROOT.iterdir()):
        # That schedules rest here, too: where one comes back, it is said anew.
        shutil.rmtree(str(ROOT))
    return bool(found)


def exists(path):
    """Tell whether a path is there, a link that leads nowhere too."""
    return path.exists() or path.is_symlink()


def run(params, check_mode):
    """Return whether anything was, or would be, changed."""
    name, state = params["deployment"], params["state"]
    if not NAME.fullmatch(name):
        raise TimerError(f"{name!r} cannot be the name of a deployment")
    units = (f"onprem-llm-schedule-{name}.service", f"onprem-llm-schedule-{name}.timer")
    if check_mode:
        return True
    if state == "held":
        hold(name, params["seconds"], params["planned"], units)
        return False
    if state == "released":
        release(name, units)
        return False
    if state == "absent":
        return absent(name, units)
    texts = {file: base64.b64decode(text).decode("utf-8") for file, text in params["contents"].items()}
    try:
        return present(name, units, texts, params["service"])
    finally:
        # Where the new one could not be written, the one that is there must be followed again.
        release(name, units)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "deployment": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "held", "released", "absent"], "default": "present"},
            "source": {"type": "path"},
            "files": {"type": "dict", "default": {}},
            "contents": {"type": "dict", "default": {}},
            "service": {"type": "str", "default": ""},
            "seconds": {"type": "int", "default": 0},
            "planned": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    name = module.params["deployment"]
    try:
        changed = run(module.params, module.check_mode)
    except (TimerError, OSError, KeyError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot set the schedule of {name}: {error}", invocation={})
    module.exit_json(changed=changed, invocation={})


if __name__ == "__main__":
    main()
