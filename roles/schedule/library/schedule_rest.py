#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep the clock from starting and stopping replicas on a host that is drained, or let it go on."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_schedule_lock import wait_for
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: schedule_rest
short_description: Have all schedules of a host rest, or go on
description:
  - While they rest, no replica on this host is started or stopped by the clock, after a reboot neither; a gateway here
    goes on to drain replicas on other hosts.
  - It comes back once what was begun by then is done.
options:
  state:
    description: C(briefly) counts for O(seconds), C(drained) until C(none), which has all schedules followed again.
    type: str
    choices: [briefly, drained, none]
    required: true
  seconds:
    description: How long C(briefly) is, and how long schedules rest still where C(none) could not start all of them.
      Not asked of C(drained).
    type: int
    default: 0
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Have the schedules of a drained host rest
  schedule_rest:
    state: drained

- name: Have them followed again
  schedule_rest:
    state: none
    seconds: 14400
"""

RETURN = r"""#"""

ROOT = Path("/var/lib/onprem-llm-schedule")
RUN = Path("/run/onprem-llm/schedule")
MARK = ".resting"  # no deployment's name begins with a dot


class RestError(Exception):
    """What is in the way; for a person."""


def deployments():
    """Return the names of those that have a schedule here."""
    try:
        return sorted(one.name for one in ROOT.iterdir() if (one / "table.json").is_file())
    except OSError:
        return []


def text_of(state, seconds):
    """Return what the mark says: until when, in seconds since 1970; 0: until it is taken away."""
    if state == "drained":
        return "0\n"
    if seconds < 1:
        raise RestError(f"found seconds: {seconds}, expected 1 or more")
    return f"{time.time() + seconds:.0f}\n"


def rest(state, seconds):
    """Write the mark, and wait for what was begun before it; return whether it was another one."""
    text, mark = text_of(state, seconds), ROOT / MARK
    before = mark.read_text(encoding="utf-8") if mark.exists() else ""
    ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    put(mark, text, 0o644)
    for name in deployments():
        if not wait_for(RUN / (name + ".lock")):
            raise RestError(f"the schedule of {name} is still starting or stopping a replica")
    return text != before


def go_on(module, seconds):
    """Have done what the tables say by now, and take the mark away; return whether it was there.

    The mark goes last: what is started waits for that, and one that cannot be started leaves it for the next try.
    """
    mark = ROOT / MARK
    if not mark.exists():
        return False
    put(mark, text_of("briefly", seconds), 0o644)  # under one without an end they would not wait
    for name in deployments():
        unit = f"onprem-llm-schedule-{name}.service"
        code, out, err = module.run_command(["systemctl", "start", "--no-block", unit])
        if code != 0:
            raise RestError(
                f"systemctl start {unit} failed: {(err or out).strip()}; on the host: systemctl status {unit}"
            )
    mark.unlink()
    return True


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["briefly", "drained", "none"], "required": True},
            "seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    state, seconds = module.params["state"], module.params["seconds"]
    if module.check_mode:
        module.exit_json(changed=True)
    try:
        changed = go_on(module, seconds) if state == "none" else rest(state, seconds)
    except (RestError, OSError) as error:
        module.fail_json(
            msg="cannot have the schedules of this host {}: {}".format("go on" if state == "none" else "rest", error),
            invocation={},
        )
    module.exit_json(changed=changed, invocation={})


if __name__ == "__main__":
    main()
