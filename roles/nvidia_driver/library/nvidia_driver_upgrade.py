#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring a host from its NVIDIA driver to another version; in check mode say whether that can be."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Mapping

from ansible.module_utils import nvidia_driver_look as look
from ansible.module_utils import nvidia_driver_plan as plans
from ansible.module_utils import nvidia_driver_steps as steps
from ansible.module_utils import nvidia_driver_turn as turns
from ansible.module_utils import nvidia_driver_upgrade as upgrade
from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils import onprem_llm_dnf as dnf
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.nvidia_driver_apt import Apt
from ansible.module_utils.nvidia_driver_dnf import Dnf
from ansible.module_utils.nvidia_driver_needs import DriverError, asked
from ansible.module_utils.nvidia_driver_packages import RHEL_FAMILY, Choice, Wishes, chosen
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import use_proxy

DOCUMENTATION = r"""
module: nvidia_driver_upgrade
short_description: Another version of the driver that a host has
description:
  - Lets go of the packages that are held, installs the version with its modules for the running and the next kernel,
    holds them again, and loads the modules in the place of those that run, where nothing uses the GPUs. Nothing is
    ever rebooted here; C(reboot) says why one is wanted. A host without a driver is left as it is.
  - In check mode sources are asked with lists in a folder of their own, and nothing on the host is changed.
  - One at a time at a host. Where the run that began one was broken off, it goes on here to its end; in check mode
    that is said (C(at_work)), and nothing more is looked at.
options:
  version: {description: A branch such as 580 or a version such as 580.95.05., type: str, required: true}
  downgrade: {description: Whether the version may be older than that of the host., type: bool, default: false}
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
  mirrors: {description: Mirrors by name; debian debian_security ubuntu cuda., type: dict, default: {}}
  fingerprints: {description: The keys that the mirror cuda may be signed with., type: list, elements: str, default: []}
  source: {description: The apt source that alone is asked., type: path}
  proxy: {description: The proxy for fetching packages as http https no_proxy., type: dict}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Bring the driver to a branch
  nvidia_driver_upgrade:
    version: "580"
"""

RETURN = r"""
actions:
  description: What was (or, in check mode, would be) done, in words.
  type: list
  returned: always
failure:
  description: Why the host does not have the version, empty where all is well.
  type: str
  returned: always
onprem_llm:
  description:
    - C(findings), C(reboot), and C(driver_upgrade) with gpus, names, loaded, installed, then, kind, done, refused, and
      at_work, who is at work on the driver now.
  type: dict
  returned: always
"""

OPTIONS: dict[str, Any] = {
    **steps.OPTIONS,
    "version": {"type": "str", "required": True},
    "downgrade": {"type": "bool", "default": False},
}


class Upgrade:
    """One host on its way to another version."""

    def __init__(self, options: Mapping[str, Any], check_mode: bool) -> None:
        """Nothing is looked at yet. DriverError for a version that is none."""
        self.options, self.check_mode = options, check_mode
        self.goal = upgrade.goal_of(options["version"])
        self.done: list[str] = []
        self.findings: list[plans.Finding] = []
        self.reboot: list[str] = []
        self.facts = look.facts()
        loaded = self.facts["loaded"]
        self.seen: dict[str, Any] = {
            "gpus": len(plans.ours(self.facts)),
            "names": "",
            "loaded": loaded["version"] if loaded else None,
            "installed": upgrade.on_disk(self.facts) or None,
            "then": None,
            "kind": None,
            "done": False,
            "at_work": None,
        }

    def bring(self) -> None:
        """Look, plan, carry out. DriverError, PackageError, OSError, ValueError."""
        if not plans.ours(self.facts) or not upgrade.has_driver(self.facts):
            return
        needs = asked(plans.ours(self.facts), self.facts["switches"])
        self.seen["names"] = needs.names
        if self.goal.version and upgrade.is_there(self.facts, self.goal):
            self._is_there()
            return
        upgrade.check_generation(needs, self.goal, self.options["kernel_modules"])
        redhat = self.facts["os"] in RHEL_FAMILY
        where = (self.options[name] for name in ("mirrors", "source", "fingerprints"))
        hands = (Dnf if redhat else Apt)(self.facts, *where)
        with (dnf if redhat else apt).only(self.options["source"]), self._asked(hands):
            self._bring_with(hands)

    @contextlib.contextmanager
    def _asked(self, hands: steps.Hands) -> Iterator[None]:
        """Have the sources ready to be asked for the version; in check mode beside those of the host."""
        upgrade.check_packaged(self.facts, hands.installed())
        with hands.aside() if self.check_mode else contextlib.nullcontext():
            if not self.check_mode and hands.prepare():
                self.done.append("name the packages' source")
            with hands.pinned(self.goal.pattern):
                yield

    def _bring_with(self, hands: steps.Hands) -> None:
        offered = hands.offered()
        choice = self._choice(offered)
        if choice is None or upgrade.is_there(self.facts, self.goal, choice.version):
            self._is_there()
            return
        self.seen.update(then=choice.version, kind=choice.kind)
        self._check_direction(choice.version, hands)
        state = {**steps.state(hands), "users": look.users()}
        self._carry_out(upgrade.for_upgrade(self.facts, choice, state, offered), hands)

    def _choice(self, offered: dict[str, str]) -> Choice | None:
        """Choose the packages; None where sources have no more of a branch that runs already. DriverError."""
        needs = asked(plans.ours(self.facts), self.facts["switches"])
        wishes = Wishes(self.goal.branch, self.options["kernel_modules"], self.options["build"])
        try:
            choice = chosen(self.facts, needs, wishes, offered)
            upgrade.check_found(self.goal, choice)
        except DriverError:
            if upgrade.is_there(self.facts, self.goal):
                return None
            raise
        return choice

    def _is_there(self) -> None:
        self.seen.update(then=self.facts["loaded"]["version"], done=True)

    def _check_direction(self, then: str, hands: steps.Hands) -> None:
        now = self.seen["loaded"] or self.seen["installed"]
        if upgrade.numbers(then) >= upgrade.numbers(now):
            return
        if not self.options["downgrade"] and not self.check_mode:
            raise DriverError(f"found driver {now}, expected one that is older than {then}, or leave for a downgrade")
        hands.allow_downgrade()

    def _carry_out(self, plan: plans.Plan, hands: steps.Hands) -> None:
        self.findings, self.reboot = plan.findings, list(plan.reboot)
        carrying = steps.Steps(hands)
        try:
            for action in plan.actions:
                self.done.append(steps.in_words(action))
                if not self.check_mode:
                    carrying.carry_out(action)
        except (DriverError, PackageError, OSError):
            hands.hold()  # whatever is installed now: nothing else may change it meanwhile
            raise
        self.reboot += carrying.reboot
        if not self.check_mode and not self.reboot:
            self.seen.update(loaded=running_version(self.seen), done=True)


def running_version(seen: Mapping[str, Any]) -> str | None:
    """Return the version that the kernel has now."""
    running = look.loaded(look.read("proc/driver/nvidia/version"))
    return running["version"] if running else seen["loaded"]


@contextlib.contextmanager
def in_turn(version: str, check_mode: bool) -> Iterator[str | None]:
    """Have the driver to oneself; DriverError where somebody is at work on it, which a look is told instead."""
    if check_mode:
        yield turns.at_work()
        return
    with turns.turn(f"driver {version}"):
        yield None


def answer(options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return what the module answers; what keeps a host from the version is told with its remedy."""
    failure, told = "", None
    try:
        with in_turn(options["version"], check_mode) as busy:
            told = Upgrade(options, check_mode)
            told.seen["at_work"] = busy
            if not busy:
                told.bring()
    except (DriverError, PackageError, OSError, ValueError) as problem:
        failure = str(problem)
        if told is not None:
            told.findings = [plans.failed(failure)]
    seen = {**(told.seen if told else {}), "refused": failure}
    return {
        "changed": bool(told and told.done),
        "actions": told.done if told else [],
        "failure": failure,
        "onprem_llm": {
            "findings": told.findings if told else [],
            "reboot": told.reboot if told else [],
            "driver_upgrade": seen,
        },
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    use_proxy(module.params["proxy"] or {})
    module.exit_json(**answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
