#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Let only some addresses reach the ports of engines: an nftables table of our own, now and at boot."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_write import put

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

TABLE = "inet onprem_llm"
RULES = Path("/etc/onprem-llm/firewall.nft")
INNER_PORT = 8000  # of every engine, inside its container
UNIT = Path("/etc/systemd/system/onprem-llm-firewall.service")
WANTED_BY = Path("/etc/systemd/system/multi-user.target.wants") / UNIT.name
# After nftables.service, whose start empties every table; PartOf brings ours back when somebody restarts it.
UNIT_TEXT = """[Unit]
Description=Let only gateways reach the engines of onprem-llm
DefaultDependencies=no
After=local-fs.target nftables.service firewalld.service
Before=docker.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
ConditionPathExists={rules}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft} -f {rules}
ExecReload={nft} -f {rules}

[Install]
WantedBy=multi-user.target
"""


class FirewallError(Exception):
    """What was found and expected, and what to do; for a person."""


def rules_text(ports, sources):
    """Return the file that nft loads: it replaces our table in one step and touches no other.

    -150 is after connection tracking and before docker's translation of addresses (-100), so that ports are those of
    the host. The last rule is for packets that somebody routes straight to a container's own address, where engines
    listen on INNER_PORT, also those that are published on loopback alone; what a container itself sends elsewhere is
    nobody's business here.
    """
    wanted = ", ".join(str(port) for port in sorted(set(ports)))
    published = f"        tcp dport {{ {wanted} }} fib daddr type local drop\n" if wanted else ""
    families = {4: [], 6: []}
    for source in sorted({ipaddress.ip_address(one) for one in sources}, key=lambda one: (one.version, int(one))):
        families[source.version].append(str(source))
    accepts = [
        f"        {word} saddr {{ {', '.join(families[version])} }} accept\n"
        for version, word in ((4, "ip"), (6, "ip6"))
        if families[version]
    ]
    return (
        "# Written by onprem-llm: which addresses reach the engines of this host.\n"
        # Named once, so that the delete finds a table the first time too.
        f"table {TABLE}\ndelete table {TABLE}\n"
        f"table {TABLE} {{\n"
        "    chain engines {\n"
        "        type filter hook prerouting priority -150; policy accept;\n"
        '        iif "lo" accept\n'
        "        ct direction reply accept\n"
        f"{''.join(accepts)}"
        f"{published}"
        f'        tcp dport {INNER_PORT} fib daddr oifname "br-*" iifname != "br-*" drop\n'
        "    }\n"
        "}\n"
    )


def run(*command):
    """Run a command and return (exit code, what it said)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def tool():
    """Return where nft is; FirewallError where it is not, or where the kernel knows no nftables."""
    path = shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise FirewallError(
            "found no nft on the host, expected the package nftables, which keeps strangers off the engines' ports. "
            "Run: onprem-llm bootstrap INVENTORY"
        )
    code, said = run(path, "list", "tables")
    if code != 0:
        raise FirewallError(f"`nft list tables` failed: {said}; expected a kernel with nf_tables. Load or build it in.")
    return path


def is_loaded(nft):
    """Return whether the kernel has our table."""
    return run(nft, "list", "table", *TABLE.split())[0] == 0


def text_of(path):
    """Return a file's text, or None."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def checked(nft, text):
    """Have nft read the rules before they stand anywhere."""
    with tempfile.NamedTemporaryFile("w", suffix=".nft", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        code, said = run(nft, "--check", "--file", file.name)
    if code != 0:
        raise FirewallError(f"nft refuses the rules, and nothing was changed: {said}")


def present(ports, sources, check_mode):
    """Bring rules, kernel and unit to what is wanted; return whether that changed anything."""
    nft = tool()
    rules, unit = rules_text(ports, sources), UNIT_TEXT.format(nft=nft, rules=RULES)
    stale = text_of(RULES) != rules
    load = stale or not is_loaded(nft)
    files = {path: text for path, text in ((RULES, rules), (UNIT, unit)) if text_of(path) != text}
    differs = bool(files) or load or not WANTED_BY.is_symlink()
    if check_mode or not differs:
        return differs
    if stale:
        checked(nft, rules)
    for path, text in files.items():
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        put(path, text, 0o644)
    if load:
        code, said = run(nft, "--file", str(RULES))
        if code != 0:
            raise FirewallError(f"`nft --file {RULES}` failed: {said}")
    # A link instead of `systemctl enable`, which reloads systemd (NVIDIA/nvidia-container-toolkit#48).
    WANTED_BY.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not WANTED_BY.is_symlink():
        WANTED_BY.symlink_to(UNIT)
    # Marks it as started, for PartOf and for people; the rules are loaded already.
    run("systemctl", "start", UNIT.name)
    return True


def absent(check_mode):
    """Remove table, file and unit; return whether there was anything."""
    nft = shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin")
    loaded = nft is not None and is_loaded(nft)
    files = [path for path in (WANTED_BY, UNIT, RULES) if path.is_symlink() or path.exists()]
    if check_mode or not (loaded or files):
        return bool(loaded or files)
    run("systemctl", "stop", UNIT.name)
    for path in files:
        path.unlink()
    if loaded:
        code, said = run(nft, "delete", "table", *TABLE.split())
        if code != 0:
            raise FirewallError(f"`nft delete table {TABLE}` failed: {said}")
    if RULES.parent.is_dir() and not any(RULES.parent.iterdir()):
        RULES.parent.rmdir()
    return True


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "sources": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    ports, sources = module.params["ports"], module.params["sources"]
    try:
        wrong = [port for port in ports if not 0 < port < 65536]
        if wrong:
            raise FirewallError(f"found the ports {wrong}, expected 1 to 65535")
        wanted = module.params["state"] == "present"
        changed = present(ports, sources, module.check_mode) if wanted else absent(module.check_mode)
    except (FirewallError, OSError, ValueError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"engine_firewall: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
