#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: let torch in an engine's own image multiply two matrices on the GPUs, in throw-away containers."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_check_findings import ERROR, OK
from ansible.module_utils.gpu_check_trial import (
    SCRIPT,
    another_way,
    answer_of,
    arguments,
    in_reach,
    trial_finding,
)
from ansible.module_utils.onprem_llm_limited import call

DOCUMENTATION = r"""
module: gpu_trial
short_description: Try GPUs inside the image that will use them
description:
  - Runs C(python3) of an image once, with the GPUs given to it as an engine gets them, with no network and nothing
    mounted; nothing is pulled, and the container is removed. One that hangs ends itself.
  - Returns a finding for each trial. It fails no host. Where a container did not get the GPUs, the other ways are
    tried, and the finding says which one works.
options:
  trials:
    description: What is to be tried.
    type: list
    elements: dict
    required: true
    suboptions:
      image: {description: An image on this host., type: str, required: true}
      name: {description: What people know it by., type: str}
      access: {description: The way that GPUs are given., type: str, choices: [cdi, gpus, runtime], required: true}
      devices: {description: "The GPUs' names as that way has them; none: all.", type: list, elements: str, default: []}
      gpus: {description: How many GPUs torch must see; 0 for at least one., type: int, default: 0}
      others: {description: "The other ways; each with access and devices.", type: list, elements: dict, default: []}
  timeout: {description: Seconds for one trial; the image is read from the disk in them., type: float, default: 180}
author: [onprem-llm]
"""

TRIAL = {
    "image": {"type": "str", "required": True},
    "name": {"type": "str"},
    "access": {"type": "str", "choices": ["cdi", "gpus", "runtime"], "required": True},
    "devices": {"type": "list", "elements": "str", "default": []},
    "gpus": {"type": "int", "default": 0},
    "others": {"type": "list", "elements": "dict", "default": []},
}
OPTIONS: dict[str, Any] = {
    "trials": {"type": "list", "elements": "dict", "required": True, "options": TRIAL},
    "timeout": {"type": "float", "default": 180},
}
GRACE = 15  # seconds that docker has to begin and end with, beside the program's own


def judged(trial: dict[str, Any], timeout: float, number: int) -> dict[str, str]:
    """Try one way; where the GPUs do not get in by it, try the others, and say which one works."""
    found, got_in = tried(trial, timeout, f"{number}")
    for other in [] if got_in else trial["others"]:
        again, got_in = tried({**trial, **other}, timeout, f"{number}-{other['access']}")
        if got_in and again["level"] == OK:
            return {**found, "remedy": another_way(other["access"])}
    return found


def tried(trial: dict[str, Any], timeout: float, number: str) -> tuple[dict[str, str], bool]:
    """Run one container and judge what came of it; return also whether another way need not be tried."""
    name = f"onprem-llm-trial-{os.getpid()}-{number}"
    try:
        code, text = call(
            ["docker", "run", *arguments(trial, name), trial["image"], "-c", SCRIPT, str(timeout)], timeout + GRACE
        )
        if code is None:
            call(["docker", "rm", "--force", name], GRACE)
    except OSError as error:
        code, text = 127, str(error)
    answer = answer_of(text)
    found = trial_finding(trial, code, text, answer, timeout)
    return found, found["level"] != ERROR or in_reach(trial, code, answer)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=False)
    options = module.params
    found = [judged(trial, options["timeout"], number) for number, trial in enumerate(options["trials"])]
    module.exit_json(changed=False, invocation={}, onprem_llm={"trials": found})


if __name__ == "__main__":
    main()
