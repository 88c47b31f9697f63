"""Ansible module: look at a host before anything is installed on it, change nothing, and say what is wrong."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_preflight_clock import clock_findings
from ansible.module_utils.host_preflight_findings import Finding, failure
from ansible.module_utils.host_preflight_machine import machine_findings, system
from ansible.module_utils.host_preflight_network import network_facts, pool_findings
from ansible.module_utils.host_preflight_storage import disk_findings

DOCUMENTATION = r"""
module: host_preflight
short_description: Look at a host before bootstrap
description:
  - Returns findings, each with C(check), C(level) (ok, warning, error), C(found), C(expected) and C(remedy).
  - Returns the networks that docker's address pools must not hide, and what the system is. It changes nothing.
options:
  data_root: {description: The folder of the projects., type: path, required: true}
  weights_dir: {description: The folder of the weights., type: path, required: true}
  control_time: {description: The control host's clock in seconds since the epoch., type: float}
  max_clock_skew: {description: Seconds between the two clocks that are still fine., type: float, default: 60}
  min_memory_gib: {description: Less memory is an error., type: float, default: 2}
  min_free_gib:
    description: Free space wanted at C(data_root), C(weights_dir) and C(docker_root).
    type: dict
    default: {}
  peers: {description: Names and addresses that the host must go on reaching., type: list, elements: str, default: []}
  check_address_pools: {description: Compare docker's pools with the networks in use., type: bool, default: true}
  address_pools:
    description: The pools that docker will be given; those of daemon.json, or docker's own, when it is not said.
    type: list
    elements: dict
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {
    "data_root": {"type": "path", "required": True},
    "weights_dir": {"type": "path", "required": True},
    "control_time": {"type": "float"},
    "max_clock_skew": {"type": "float", "default": 60},
    "min_memory_gib": {"type": "float", "default": 2},
    "min_free_gib": {"type": "dict", "default": {}},
    "peers": {"type": "list", "elements": "str", "default": []},
    "check_address_pools": {"type": "bool", "default": True},
    "address_pools": {"type": "list", "elements": "dict"},
}


def main() -> None:
    """Collect every finding first; the role fails the host afterwards, so that one run shows them all."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    options = module.params
    findings: list[Finding] = []
    findings += machine_findings(options["min_memory_gib"])
    findings += clock_findings(options["control_time"], options["max_clock_skew"])
    findings += disk_findings(options["data_root"], options["weights_dir"], options["min_free_gib"])
    network, network_errors = network_facts(options["peers"])
    findings += network_errors
    if options["check_address_pools"]:
        findings += pool_findings(network, options["address_pools"])
    module.exit_json(
        changed=False,
        failure=failure(findings),
        onprem_llm={"findings": findings, "network": network, "system": system()},
    )


if __name__ == "__main__":
    main()
