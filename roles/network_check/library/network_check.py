#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One host's part in measuring the lines between hosts: a transient unit, and what it found."""

from __future__ import annotations

import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_run_unit import OPTIONS, RunUnit

DOCUMENTATION = r"""
module: network_check
short_description: Start, look at or end this host's part in measuring the lines between hosts
description:
  - The part is the transient unit C(onprem-llm-network-check-RUN.service). systemd ends it after C(order.limit)
    seconds, whoever has forgotten it.
  - While it runs two ports are open to the hosts of the run, one of them for iperf3, which listens only while it is
    used. The engine's own ports are not opened; whether they are reached is what is looked at.
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
  order:
    description: This host's order, for C(started), as C(files/network_check/order.py) reads it; C(limit) in seconds.
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
  network_check:
    state: looked_at
    run: 0123abcd
"""

RETURN = r"""
ended:
  description: Whether there is nothing more to wait for on this host.
  type: bool
  returned: success
status:
  description: What the program says; state, done and total (rounds), pairs, host, error.
  type: dict
  returned: success
onprem_llm:
  description: The same status, as C(network_check), for the caller.
  type: dict
  returned: for stopped
"""

ENDED = {"done", "failed", "stopped"}


def act(params):
    """Do what is asked; return the module's answer."""
    part = RunUnit("network-check", params["run"], params["folder"], "onprem-llm measures lines")
    if params["state"] != "started":
        return part.look(params["state"], ENDED, long=["pairs"])
    order = params["order"]
    ports = [("tcp", order["port"]), ("udp", order["port"]), ("tcp", order["speed_port"])]
    return part.start(params, ports, properties=[f"RuntimeMaxSec={int(order['limit'])}"])


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS)
    try:
        answer = act(module.params)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot take part in measuring the lines between hosts: {error}", invocation={})
    module.exit_json(invocation={}, **answer)


if __name__ == "__main__":
    main()
