#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: have NVIDIA's tool make the CDI specification anew where the one that is there does not fit."""

from __future__ import annotations

from typing import Any

from ansible.module_utils import nvidia_toolkit_look as look
from ansible.module_utils import nvidia_toolkit_plan as plans
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.nvidia_toolkit_packages import ToolkitError
from ansible.module_utils.onprem_llm_command import run

DOCUMENTATION = r"""
module: nvidia_container_toolkit_cdi
short_description: A CDI specification that fits a host's GPUs and driver
description:
  - One that names every GPU by UUID, and no file that is gone, is left alone. Of others C(program) is run.
options:
  program: {description: The program that makes it., type: path, required: true}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Make the specification anew where it does not fit
  nvidia_container_toolkit_cdi:
    program: /usr/local/libexec/onprem-llm-nvidia-cdi
"""

RETURN = r"""
failure:
  description: Why there is none that fits, empty where all is well.
  type: str
  returned: always
onprem_llm:
  description: C(findings).
  type: dict
  returned: always
"""

OPTIONS: dict[str, Any] = {"program": {"type": "path", "required": True}}
LIMIT_S = 180.0  # it asks every GPU, after its driver has woken up


def bring(program: str, check_mode: bool) -> tuple[bool, plans.Finding]:
    """Return whether something was (or would be) done, and how it stands then. ToolkitError."""
    now = look.specification()
    if now["cards"] is None:
        return False, plans.later(now["error"])
    if plans.undivided(now):
        return False, plans.without_partitions(now)
    if plans.whole(now) or not plans.targets(now["files"]):
        return False, plans.cdi_finding(now)
    if check_mode:
        return True, plans.finding("ok", f"{plans.wrong(now)}: it would be made anew", plans.EXPECTED, check="cdi")
    code, said = run([program], LIMIT_S)
    if code != 0:
        raise ToolkitError(
            f"found that {program} failed, expected a CDI specification. It says:\n{said[-600:]}\nMend what it names, "
            "then run bootstrap again"
        )
    return True, plans.cdi_finding(look.specification())


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    failure = ""
    try:
        changed, found = bring(module.params["program"], module.check_mode)
    except (ToolkitError, OSError) as problem:
        failure, changed = str(problem), False
        found = plans.failed(failure)
    module.exit_json(changed=changed, failure=failure, onprem_llm={"findings": [found]})


if __name__ == "__main__":
    main()
