#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One host's part in a fan-out: a transient unit, the folder that it reads, and what it says."""

from __future__ import annotations

import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_run_unit import OPTIONS, RunUnit

DOCUMENTATION = r"""
module: fan_out
short_description: Start, look at or end this host's part in a fan-out
description:
  - The part is the transient unit C(onprem-llm-fan-out-RUN.service). It ends by itself when nobody pulls any more.
  - While it runs its port is open to the hosts of the run, in firewalld or in iptables where one of them lets not all
    come in. However it ends, systemd has it shut.
options:
  state:
    description: Start it, look how far it is, or end it and remove what it has left.
    type: str
    choices: [started, looked_at, stopped]
    required: true
  run:
    description: Name of the run.
    type: str
    required: true
  folder:
    description: Where the run's folder is made.
    type: path
    default: /run
  measure:
    description: Measure the line from the host before instead of passing files on.
    type: bool
    default: false
  order:
    description: This host's order, for C(started).
    type: dict
    default: {}
  secret:
    description: The run's secret, for C(started).
    type: str
    default: ""
  program:
    description: The program as a zip file in base64; the action plugin adds it.
    type: str
    default: ""
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Look how far it is
  fan_out:
    state: looked_at
    run: 0123abcd
"""

RETURN = r"""
ended:
  description: Whether there is nothing more to wait for on this host.
  type: bool
  returned: success
status:
  description: What the program says; state, done and total (bytes), rate (bytes a second), error.
  type: dict
  returned: success
onprem_llm:
  description: The same status, as C(fan_out), for the caller.
  type: dict
  returned: for stopped
"""

ENDED = {"serving", "done", "failed", "measured", "stopped"}


def act(params):
    """Do what is asked; return the module's answer."""
    part = RunUnit("fan-out", params["run"], params["folder"], "onprem-llm passes files on")
    if params["state"] != "started":
        return part.look(params["state"], ENDED)
    return part.start(params, [("tcp", params["order"]["port"])], ["--measure"] if params["measure"] else [])


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={**OPTIONS, "measure": {"type": "bool", "default": False}})
    try:
        answer = act(module.params)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot take part in passing files on: {error}", invocation={})
    module.exit_json(invocation={}, **answer)


if __name__ == "__main__":
    main()
