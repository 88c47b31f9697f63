#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: install the NVIDIA Container Toolkit on a host that has NVIDIA GPUs."""

from __future__ import annotations

from typing import Any, Mapping

from ansible.module_utils import nvidia_toolkit_look as look
from ansible.module_utils import nvidia_toolkit_plan as plans
from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils import onprem_llm_dnf as dnf
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.nvidia_toolkit_hands import MIRROR, Apt, Dnf, Hands
from ansible.module_utils.nvidia_toolkit_packages import NAMES, RHEL_FAMILY, ToolkitError, chosen
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import use_proxy

DOCUMENTATION = r"""
module: nvidia_container_toolkit
short_description: The NVIDIA Container Toolkit on hosts with NVIDIA GPUs
description:
  - What GPUs there are comes from the PCI bus. A toolkit that is whole and new enough is left alone, whoever put it
    there. What is installed is of one version, and held at it.
  - Where none is to be had that is a warning, unless C(version) or a mirror asks for one.
options:
  version: {description: "The version as 1.18.2; the newest that the sources have where it is not said.", type: str}
  mirrors: {description: Mirrors by name; nvidia_container_toolkit is asked., type: dict, default: {}}
  source: {description: The apt source that alone is asked., type: path}
  fingerprints: {description: "The keys that a mirror's packages may be signed with.", type: list, elements: str}
  paths: {description: "Files that are about to be made, noted for uninstall.", type: list, elements: path, default: []}
  proxy: {description: The proxy for fetching packages as http https no_proxy., type: dict}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Install the toolkit
  nvidia_container_toolkit:
    version: 1.18.2
"""

RETURN = r"""
actions:
  description: What was (or, in check mode, would be) done, in words.
  type: list
  returned: always
usable:
  description: Whether the host has GPUs and a toolkit that can write specifications for them.
  type: bool
  returned: always
failure:
  description: Why containers cannot get the GPUs, empty where all is well.
  type: str
  returned: always
onprem_llm:
  description: C(findings).
  type: dict
  returned: always
"""

OPTIONS: dict[str, Any] = {
    "version": {"type": "str"},
    "mirrors": {"type": "dict", "default": {}},
    "source": {"type": "path"},
    # What a key is known by: no secret.
    "fingerprints": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "paths": {"type": "list", "elements": "path", "default": []},
    # A proxy's address may hold a password.
    "proxy": {"type": "dict", "no_log": True},
}


class Toolkit:
    """One host on its way to the toolkit."""

    def __init__(self, options: Mapping[str, Any], check_mode: bool) -> None:
        """Nothing is looked at yet."""
        self.options, self.check_mode = options, check_mode
        self.done: list[str] = []
        self.usable = False
        self.findings: list[plans.Finding] = []

    def bring(self) -> None:
        """Look, and install where that is wanted. ToolkitError, PackageError, OSError, ValueError."""
        facts = look.facts()
        if not facts["gpus"]:
            self.findings = [plans.no_gpus()]
            return
        if not self.check_mode:
            record.note_absent(self.options["paths"], False)
            record.note_file(look.ROOT / plans.BY_HAND.lstrip("/"))
        if plans.wants_packages(facts, self.options["version"]):
            try:
                self._install(facts)
            except (ToolkitError, PackageError) as problem:
                if facts["toolkit"] is None and self._asked_for():
                    raise
                # The host goes on as it was before: it may serve by --gpus, or on CPUs, or be the gateway.
                self.findings = [{**plans.failed(str(problem)), "level": "warning"}, *plans.toolkit_findings(facts)]
                self.usable = not plans.wants_packages(facts, None)
                return
        facts = look.facts()
        self.findings = plans.toolkit_findings(facts)
        self.usable = self.check_mode or not plans.wants_packages(facts, None)
        if not self.usable:
            raise ToolkitError(
                f"found no {', '.join(facts['lacks']) or 'nvidia-ctk that runs'} after the installation, expected the "
                f"whole toolkit. Reinstall {', '.join(NAMES)} on the host, then run bootstrap again"
            )

    def _asked_for(self) -> bool:
        """Say whether the site named a toolkit, or where it comes from; a bundle's packages stand for all mirrors."""
        named = MIRROR in self.options["mirrors"] and not self.options["source"]
        return named or self.options["version"] is not None

    def _install(self, facts: Mapping[str, Any]) -> None:
        by_apt = facts["os"] not in RHEL_FAMILY
        hands: Hands = (Apt if by_apt else Dnf)(facts["machine"], self.options)
        with (apt if by_apt else dnf).only(self.options["source"]):
            if self.check_mode:
                self.done.append("install the toolkit, if the sources have it (lists are not fetched in check mode)")
                return
            hands.prepare()
            choice = chosen(hands.offered(), self.options["version"])
            hands.install(choice)
            hands.hold()
        self.done += [f"install {' '.join(NAMES)} {choice.version}", "hold them at this version"]


def answer(options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return what the module answers; a host that gets no toolkit is a finding with its remedy, not a traceback."""
    toolkit, failure = Toolkit(options, check_mode), ""
    try:
        toolkit.bring()
    except (ToolkitError, PackageError, OSError, ValueError) as problem:
        failure = str(problem)
        toolkit.findings.append(plans.failed(failure))
    return {
        "changed": bool(toolkit.done),
        "actions": toolkit.done,
        "usable": toolkit.usable and not failure,
        "failure": failure,
        "onprem_llm": {"findings": toolkit.findings},
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    use_proxy(module.params["proxy"] or {})
    module.exit_json(**answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
