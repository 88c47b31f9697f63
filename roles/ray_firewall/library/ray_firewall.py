#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Let only the cluster's hosts reach Ray's ports, and only gateways Ray Serve's: an nftables table of our own."""

from __future__ import annotations

import ipaddress
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_nft import FirewallError, guard

DOCUMENTATION = r"""
module: ray_firewall
short_description: Let only some addresses reach ranges of ports of a host
description:
  - Keeps the nftables table C(inet onprem_llm_ray), C(/etc/onprem-llm/ray.nft) and a unit that loads it before docker
    starts. No other table is read or written.
  - The host itself, and answers to connections that it opened, always pass.
options:
  rules:
    description: What is guarded.
    type: list
    elements: dict
    default: []
    suboptions:
      ports:
        description: One TCP port, or C(first-last).
        type: str
        required: true
      sources:
        description: Addresses (IPv4 or IPv6) that reach them. Nobody does where there are none.
        type: list
        elements: str
        required: true
  state:
    description: With C(absent) table, file and unit are removed.
    type: str
    choices: [present, absent]
    default: present
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Let two hosts reach each other's Ray
  ray_firewall:
    rules:
      - {ports: 20000-20999, sources: [10.0.0.1, 10.0.0.2]}
"""

RETURN = r"""#"""

GUARD = guard("ray", "Let only the cluster's hosts reach Ray of onprem-llm")


def rules_text(rules):
    """Return the file that nft loads: it replaces our table in one step and touches no other.

    `rules` is a list of {ports, sources}. -150 is after connection tracking and before docker's translation of
    addresses, as of the engines' table.
    """
    lines = [line for rule in rules for line in _rule(rule["ports"], rule["sources"])]
    return (
        "# Written by onprem-llm: which addresses reach Ray on this host.\n"
        # Named once, so that the delete finds a table the first time too.
        f"table {GUARD.table}\ndelete table {GUARD.table}\n"
        f"table {GUARD.table} {{\n"
        "    chain ray {\n"
        "        type filter hook prerouting priority -150; policy accept;\n"
        '        iif "lo" accept\n'
        "        ct direction reply accept\n"
        f"{''.join(lines)}"
        "    }\n"
        "}\n"
    )


def _rule(ports, sources):
    """Yield the lines that let `sources` have some ports, then the one that drops everybody else."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", ports)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < first <= last < 65536:
        raise FirewallError(f"found the ports {ports!r}, expected one of 1 to 65535, or first-last")
    families = {4: [], 6: []}
    for source in sorted({ipaddress.ip_address(one) for one in sources}, key=lambda one: (one.version, int(one))):
        families[source.version].append(str(source))
    for version, word in ((4, "ip"), (6, "ip6")):
        if families[version]:
            yield f"        {word} saddr {{ {', '.join(families[version])} }} tcp dport {ports} accept\n"
    yield f"        tcp dport {ports} fib daddr type local drop\n"


def main():
    """Run as an Ansible module."""
    rule = {
        "ports": {"type": "str", "required": True},
        "sources": {"type": "list", "elements": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "rules": {"type": "list", "elements": "dict", "default": [], "options": rule},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "present":
            changed = GUARD.present(rules_text(module.params["rules"]), module.check_mode)
        else:
            changed = GUARD.absent(module.check_mode)
    except (FirewallError, OSError, ValueError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"ray_firewall: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
