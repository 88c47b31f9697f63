#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: this host's part in one all-reduce over hosts, in a throw-away container of the engine's image."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_check_all_reduce import command, said
from ansible.module_utils.onprem_llm_limited import call

DOCUMENTATION = r"""
module: gpu_all_reduce
short_description: Start, look at or end this host's part in one all-reduce over hosts
description:
  - The container has the host's network, one GPU given as an engine gets it, and RDMA devices where there are any;
    nothing is mounted or pulled. It ends by itself after C(timeout) seconds.
options:
  state:
    description: Start it, look whether it has ended, or end it.
    type: str
    choices: [started, looked_at, stopped]
    required: true
  run: {description: Name of the run., type: str, required: true}
  trial: {description: "image, access, devices, as gpu_trial has them.", type: dict, default: {}}
  part: {description: "rank, world, address, port, interface, bytes.", type: dict, default: {}}
  timeout: {description: Seconds for all of it; the image is read from the disk in them., type: float, default: 180}
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["started", "looked_at", "stopped"], "required": True},
    "run": {"type": "str", "required": True},
    "trial": {"type": "dict", "default": {}},
    "part": {"type": "dict", "default": {}},
    "timeout": {"type": "float", "default": 180},
}
DOCKER = 30  # seconds that docker has for an answer


def docker(*words: str) -> tuple[int, str]:
    """Return the exit code, and what docker says."""
    code, text = call(["docker", *words], DOCKER)
    return (124, "docker does not answer") if code is None else (code, text)


def act(options: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; return the module's answer. OSError where docker cannot."""
    name = "onprem-llm-all-reduce-" + options["run"]
    if options["state"] == "started":
        code, text = docker(*command(options["trial"], options["part"], name, options["timeout"]))
        if code:
            docker("rm", "--force", name)
            lines = [line.strip() for line in text.splitlines() if "error" in line.lower()]
            raise OSError((lines or [text.strip()])[-1][:400])
        return {"changed": True}
    code, state = docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name)
    if options["state"] == "looked_at":
        return {"changed": False, "ended": code != 0 or not state.startswith(("created", "running"))}
    if code:
        return {"changed": False, "onprem_llm": {"all_reduce": {"error": "its container is gone"}}}
    _, text = docker("logs", name)
    docker("rm", "--force", name)
    ended = int(state.split()[-1]) if not state.startswith("running") else 137
    return {"changed": True, "onprem_llm": {"all_reduce": said(ended, text, options["timeout"])}}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=False)
    try:
        answer = act(module.params)
    except (OSError, ValueError, KeyError) as error:
        module.fail_json(msg=f"cannot take part in an all-reduce: {error}", invocation={})
        return
    module.exit_json(invocation={}, **answer)


if __name__ == "__main__":
    main()
