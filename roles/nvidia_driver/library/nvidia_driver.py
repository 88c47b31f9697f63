#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring a host with NVIDIA GPUs to a driver that serves them all."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Mapping

from ansible.module_utils import nvidia_driver_look as look
from ansible.module_utils import nvidia_driver_plan as plans
from ansible.module_utils import nvidia_driver_steps as steps
from ansible.module_utils import nvidia_driver_turn as turns
from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils import onprem_llm_dnf as dnf
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.nvidia_driver_apt import Apt
from ansible.module_utils.nvidia_driver_dnf import Dnf
from ansible.module_utils.nvidia_driver_needs import DriverError, asked
from ansible.module_utils.nvidia_driver_packages import RHEL_FAMILY, Wishes, chosen, of_run_file
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import use_proxy

DOCUMENTATION = r"""
module: nvidia_driver
short_description: A driver that serves every NVIDIA GPU of a host
description:
  - What GPUs there are comes from the PCI bus, before any driver. A driver that runs is left alone, whoever installed
    it. Packages are held at their version. Nothing is ever rebooted here; C(reboot) says why one is wanted.
options:
  branch: {description: The driver branch such as 580; the best that serves the GPUs where it is not said., type: int}
  kernel_modules:
    description: Open or proprietary kernel modules; C(auto) goes by the GPUs' generation.
    type: str
    choices: [auto, open, proprietary]
    default: auto
  build:
    description: Modules built here by DKMS, or precompiled ones; C(auto) takes those that are signed already.
    type: str
    choices: [auto, dkms, precompiled]
    default: auto
  run_file: {description: "NVIDIA's installer, a file on the control host, instead of packages.", type: str}
  run_folder: {description: The folder on the host in which the installer is when it is run., type: path}
  mirrors: {description: Mirrors by name; debian debian_security ubuntu cuda., type: dict, default: {}}
  fingerprints: {description: The keys that the mirror cuda may be signed with., type: list, elements: str, default: []}
  source: {description: The apt source that alone is asked., type: path}
  proxy: {description: The proxy for fetching packages as http https no_proxy., type: dict}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Install a driver
  nvidia_driver:
    branch: 580
"""

RETURN = r"""
actions:
  description: What was (or, in check mode, would be) done, in words.
  type: list
  returned: always
installer:
  description: C(folder) and C(name) of the .run file on the control host where it is (or, in check mode, would be)
    run, so that it has to be in C(run_folder); else none.
  type: dict
  returned: always
failure:
  description: Why the host has no driver, empty where all is well.
  type: str
  returned: always
onprem_llm:
  description: C(findings), and C(reboot), the reasons for which a reboot is wanted.
  type: dict
  returned: always
"""

OPTIONS: dict[str, Any] = {
    **steps.OPTIONS,
    "branch": {"type": "int"},
    "run_file": {"type": "str"},
    "run_folder": {"type": "path"},
}


class Driver:
    """One host on its way to a driver."""

    def __init__(self, options: Mapping[str, Any], check_mode: bool) -> None:
        """Nothing is looked at yet."""
        self.options, self.check_mode = options, check_mode
        self.done: list[str] = []
        self.installer: dict[str, str] | None = None
        self.findings: list[plans.Finding] = []
        self.reboot: list[str] = []

    def bring(self) -> None:
        """Look, plan, carry out. DriverError, PackageError, OSError, ValueError."""
        facts = look.facts()
        plan = plans.settled(facts)
        if plan is None:
            asked(plans.ours(facts), facts["switches"])  # before anything is fetched
            turn = contextlib.nullcontext() if self.check_mode else turns.turn("bootstrap")
            with turn, (dnf if facts["os"] in RHEL_FAMILY else apt).only(self.options["source"]):
                self._install(facts)
        else:
            self.findings, self.reboot = plan.findings, plan.reboot

    def _install(self, facts: dict[str, Any]) -> None:
        kind = Dnf if facts["os"] in RHEL_FAMILY else Apt
        hands = kind(facts, *(self.options[name] for name in ("mirrors", "source", "fingerprints")))
        if not self.check_mode and hands.prepare():
            self.done.append("name the packages' source")
        wishes = Wishes(self.options["branch"], self.options["kernel_modules"], self.options["build"])
        offered = hands.offered()
        if self.options["run_file"]:
            self._run_file(facts, wishes, offered, hands)
            return
        if self.check_mode and not any("nvidia" in name for name in offered):
            self.done.append("install a driver, if its sources have one (package lists are not fetched in check mode)")
            return
        choice = chosen(facts, asked(plans.ours(facts), facts["switches"]), wishes, offered)
        self._carry_out(plans.for_packages(facts, choice, steps.state(hands)), hands)

    def _run_file(self, facts: dict[str, Any], wishes: Wishes, offered: Mapping[str, str], hands: steps.Hands) -> None:
        file = Path(self.options["run_file"])
        choice = of_run_file(facts, asked(plans.ours(facts), facts["switches"]), wishes, offered, file.name)
        there = str(Path(self.options["run_folder"]) / file.name)
        plan = plans.for_run_file(facts, choice, steps.state(hands), there)
        if any(action["do"] == "run_file" for action in plan.actions):
            self.installer = {"folder": str(file.parent), "name": file.name}
        self._carry_out(plan, hands)

    def _carry_out(self, plan: plans.Plan, hands: steps.Hands) -> None:
        self.findings, self.reboot = plan.findings, plan.reboot
        carrying = steps.Steps(hands)
        for action in plan.actions:
            self.done.append(steps.in_words(action))
            if not self.check_mode:
                carrying.carry_out(action)


def answer(options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return what the module answers; a host that gets no driver is a finding with its remedy, not a traceback."""
    driver, failure = Driver(options, check_mode), ""
    try:
        driver.bring()
    except (DriverError, PackageError, OSError, ValueError) as problem:
        failure = str(problem)
        bad = plans.failed(failure)
        driver.findings = [*[one for one in driver.findings if one["check"] != "nvidia_driver"], bad]
    return {
        "changed": bool(driver.done),
        "actions": driver.done,
        "installer": driver.installer,
        "failure": failure,
        "onprem_llm": {"findings": driver.findings, "reboot": driver.reboot},
    }


def main() -> None:
    """Run as an Ansible module."""
    needs = {"run_file": "run_folder"}
    module = AnsibleModule(argument_spec=OPTIONS, required_by=needs, supports_check_mode=True)
    use_proxy(module.params["proxy"] or {})
    module.exit_json(**answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
