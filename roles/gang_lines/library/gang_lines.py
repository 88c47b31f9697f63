#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Try the lines of a replica over several hosts before it starts: its ports can be had, and its hosts reach them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: gang_lines
short_description: Try the lines of a replica over several hosts before it starts
description:
  - With C(listening) a process listens at the ports, and at one that the kernel chooses, which it tells who connects;
    it ends by itself after O(limit).
  - With C(tried) every peer's ports are connected to, and the one that each of them tells; of a peer with C(ports) of
    its own those alone.
  - With C(ended) the process ends. Nothing else of the host is touched.
options:
  state:
    description: What to do. All hosts listen before one of them tries.
    type: str
    choices: [listening, tried, ended]
    required: true
  address:
    description: Address of this host, as the others know it.
    type: str
    required: true
  ports:
    description: TCP ports that are listened on here; where a peer names none, they are tried there, too.
    type: list
    elements: int
    required: true
  peers:
    description: C(host) and C(address) of each of the others, and C(ports), where requests come in.
    type: list
    elements: dict
    default: []
  limit:
    description: Seconds that the process listens at most.
    type: int
    default: 300
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Listen
  gang_lines:
    state: listening
    address: 10.0.0.1
    ports: [7600, 7601]
"""

RETURN = r"""#"""

PATIENCE = 5.0  # seconds for one connection
PIDS = Path("/run")
MARK = "onprem-llm-gang-lines"
HINT = (
    "Let them in, in firewalls between the hosts and on them (ufw: {ufw}; firewalld: {firewalld}, then firewall-cmd "
    "--reload); see: onprem-llm check --network"
)
SERVER = """
import json, select, socket, sys, time
address, ports, limit = json.loads(sys.argv[2])
end, sockets = time.monotonic() + limit, []
for port in [*ports, 0]:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((address, port))
    except OSError as error:
        sys.exit(print("port %d: %s" % (port, error.strerror), flush=True) or 1)
    one.listen(64)
    sockets.append(one)
said = b"%d\\n" % sockets[-1].getsockname()[1]
print("ready", flush=True)
while time.monotonic() < end:
    for one in select.select(sockets, [], [], 1.0)[0]:
        found = one.accept()[0]
        found.settimeout(2.0)
        try:
            found.sendall(said)
            found.recv(1)  # whoever connected hangs up first: no port is left waiting here
        except OSError:
            pass
        found.close()
"""


class LineError(Exception):
    """What was found and expected, and what to do; for a person."""


def pid_file(ports):
    """Return where the process of these ports is noted."""
    return PIDS / f"{MARK}-{ports[0]}.pid"


def listen(address, ports, limit):
    """Start the process; LineError where a port cannot be had."""
    if not ports:
        return
    end(ports)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, MARK, json.dumps([address, ports, limit])],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    said = process.stdout.readline().decode("utf-8", "replace").strip()
    if said != "ready":
        process.wait()
        raise LineError(
            "found no way to listen at {}: {}; expected the ports {} to be free. Stop what holds them, or choose other "
            "onprem_llm_site.gang_ports".format(address, said or "no answer", _listed(ports))
        )
    pid_file(ports).write_text(str(process.pid), encoding="utf-8")


def end(ports):
    """End the process of these ports, if there is one, and it is ours."""
    if not ports:
        return
    path = pid_file(ports)
    with contextlib.suppress(OSError, ValueError):
        pid = int(path.read_text(encoding="utf-8"))
        if MARK in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace"):
            os.kill(pid, signal.SIGKILL)
            limit = time.monotonic() + PATIENCE
            while runs(pid) and time.monotonic() < limit:
                time.sleep(0.05)
    with contextlib.suppress(OSError):
        path.unlink()


def runs(pid):
    """Tell whether a process has not ended: one that has, and whose parent has not asked yet, has no port left."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def connect(address, port):
    """Return what is said at an address and port; OSError where nobody answers."""
    with contextlib.closing(socket.create_connection((address, port), PATIENCE)) as one:
        one.settimeout(PATIENCE)
        return one.recv(16).decode("ascii", "replace").strip()


def tried(address, ports, peers):
    """Connect to all; LineError names each line that does not bear it. `address`: where packets of ours come from."""
    wrong, hints = [], {}
    for peer in peers:
        own = peer.get("ports")
        shut = shut_lines(peer, own or ports, chosen=not own)
        wrong += shut
        if shut:
            hints.setdefault(hint(address, own), None)
    if wrong:
        raise LineError(
            "found lines that are shut: {}; expected the hosts of a replica to reach each other, and gateways the one "
            "that answers. {}".format("; ".join(wrong), " ".join(hints))
        )


def shut_lines(peer, ports, chosen):
    """Return what is wrong with the lines to a peer; `chosen`: its port of the kernel's choice is tried, too."""
    wrong, told = [], None
    for port in ports:
        why, said = attempt(peer["address"], port)
        told = told or said
        wrong += ["{} at {}: {}: {}".format(peer["host"], peer["address"], port, why)] if why else []
    if chosen and told and told.isdigit():
        why, _ = attempt(peer["address"], int(told))
        text = "{} at {}: {} (one of those that the kernel chooses, which engines use too): {}"
        wrong += [text.format(peer["host"], peer["address"], told, why)] if why else []
    return wrong


def hint(address, ports):
    """Return what to do on the peer; without `ports` on all of them."""
    if not ports:
        return HINT.format(
            ufw=f"ufw allow proto tcp from {address}",
            firewalld=f"firewall-cmd --permanent --zone trusted --add-source {address}",
        )
    family = "ipv6" if ":" in address else "ipv4"
    rule = f'rule family="{family}" source address="{address}" port port="{ports[0]}" protocol="tcp" accept'
    return HINT.format(
        ufw=f"ufw allow proto tcp from {address} to any port {ports[0]}",
        firewalld=f"firewall-cmd --permanent --add-rich-rule '{rule}'",
    )


def attempt(address, port):
    """Return (why there is no connection, what was said)."""
    try:
        return None, connect(address, port)
    except socket.timeout:
        return f"no answer within {PATIENCE:g} s", None
    except OSError as error:
        return error.strerror or str(error), None


def _listed(ports):
    return ", ".join(str(port) for port in ports)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listening", "tried", "ended"], "required": True},
            "address": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "peers": {"type": "list", "elements": "dict", "default": []},
            "limit": {"type": "int", "default": 300},
        }
    )
    params = module.params
    try:
        if params["state"] == "listening":
            listen(params["address"], params["ports"], params["limit"])
        elif params["state"] == "tried":
            tried(params["address"], params["ports"], params["peers"])
        else:
            end(params["ports"])
    except (LineError, OSError) as error:
        end(params["ports"])
        module.fail_json(msg=f"gang_lines: {error}")
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
