#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Let only some addresses reach the ports of engines: an nftables table of our own, now and at boot."""

from __future__ import annotations

import ipaddress
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_nft import FirewallError, guard

DOCUMENTATION = r"""
module: engine_firewall
short_description: Let only some addresses reach the ports of engines
description:
  - Keeps the nftables table C(inet onprem_llm), C(/etc/onprem-llm/firewall.nft) and a unit that loads it before docker
    starts. It drops packets before docker's own rules can send them on, which pass ufw and the like by. No other table
    is read or written.
  - The host itself, and answers to connections that it opened, always pass.
options:
  ports:
    description: TCP ports of the engines, as far as they listen on addresses of the host that others reach.
    type: list
    elements: int
    default: []
  sources:
    description: Addresses (IPv4 or IPv6) that reach them, those of the gateways. Nobody does where there are none.
    type: list
    elements: str
    default: []
  gangs:
    description:
      - For each part of a replica over several hosts, C(ports) that it listens on and C(sources), the addresses of its
        members. Nobody else reaches them, gateways neither; engines speak there without a password.
    type: list
    elements: dict
    default: []
  state:
    description: With C(absent) table, file and unit are removed.
    type: str
    choices: [present, absent]
    default: present
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Let the gateway alone reach the engine
  engine_firewall:
    ports: [8000]
    sources: [10.0.0.1]
"""

RETURN = r"""#"""

INNER_PORT = 8000  # of every engine, inside its container
GUARD = guard("firewall", "Let only gateways reach the engines of onprem-llm")


def accepts(sources, more=""):
    """Return the lines that let addresses in, one for each family."""
    families = {4: [], 6: []}
    for source in sorted({ipaddress.ip_address(one) for one in sources}, key=lambda one: (one.version, int(one))):
        families[source.version].append(str(source))
    return "".join(
        f"        {word} saddr {{ {', '.join(families[version])} }} {more}accept\n"
        for version, word in ((4, "ip"), (6, "ip6"))
        if families[version]
    )


def gang_text(gang):
    """Return the lines of one gang: its members come in, everybody else does not."""
    ports = "tcp dport { " + ", ".join(str(port) for port in sorted(set(gang["ports"]))) + " } "
    return accepts(gang["sources"], ports) + f"        fib daddr type local {ports}drop\n"


def rules_text(ports, sources, gangs=()):
    """Return the file that nft loads: it replaces our table in one step and touches no other.

    -150 is after connection tracking and before docker's translation of addresses (-100), so that ports are those of
    the host. The last rule is for packets that somebody routes straight to a container's own address, where engines
    listen on INNER_PORT, also those that are published on loopback alone; what a container itself sends elsewhere is
    nobody's business here.
    """
    wanted = ", ".join(str(port) for port in sorted(set(ports)))
    published = f"        tcp dport {{ {wanted} }} fib daddr type local drop\n" if wanted else ""
    return (
        "# Written by onprem-llm: which addresses reach the engines of this host.\n"
        # Named once, so that the delete finds a table the first time too.
        f"table {GUARD.table}\ndelete table {GUARD.table}\n"
        f"table {GUARD.table} {{\n"
        "    chain engines {\n"
        "        type filter hook prerouting priority -150; policy accept;\n"
        '        iif "lo" accept\n'
        "        ct direction reply accept\n"
        f"{''.join(gang_text(gang) for gang in sorted(gangs, key=lambda one: sorted(one['ports'])))}"
        f"{accepts(sources)}"
        f"{published}"
        f'        tcp dport {INNER_PORT} fib daddr oifname "br-*" iifname != "br-*" drop\n'
        "    }\n"
        "}\n"
    )


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "sources": {"type": "list", "elements": "str", "default": []},
            "gangs": {"type": "list", "elements": "dict", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    ports, sources, gangs = module.params["ports"], module.params["sources"], module.params["gangs"]
    try:
        wrong = [port for port in [*ports, *(p for one in gangs for p in one["ports"])] if not 0 < port < 65536]
        if wrong:
            raise FirewallError(f"found the ports {wrong}, expected 1 to 65535")
        if module.params["state"] == "present":
            changed = GUARD.present(rules_text(ports, sources, gangs), module.check_mode)
        else:
            changed = GUARD.absent(module.check_mode)
    except (FirewallError, OSError, ValueError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"engine_firewall: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
