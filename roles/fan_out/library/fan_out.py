#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One host's part in a fan-out: a transient unit, the folder that it reads, and what it says."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.fan_out_firewall import script

DOCUMENTATION = r"""
module: fan_out
short_description: Start, look at or end this host's part in a fan-out
description:
  - The part is the transient unit C(onprem-llm-fan-out-RUN.service). It ends by itself when nobody pulls any more.
  - While it runs its port is open to the hosts of the run, in firewalld or in iptables where one of them lets not all
    come in. However it ends, systemd has it shut.
options:
  state:
    description: Start it, look how far it is, or end it and remove what it has left.
    type: str
    choices: [started, looked_at, stopped]
    required: true
  run:
    description: Name of the run.
    type: str
    required: true
  folder:
    description: Where the run's folder is made.
    type: path
    default: /run
  measure:
    description: Measure the line from the host before instead of passing files on.
    type: bool
    default: false
  order:
    description: This host's order, for C(started).
    type: dict
    default: {}
  secret:
    description: The run's secret, for C(started).
    type: str
    default: ""
  program:
    description: The program as a zip file in base64; the action plugin adds it.
    type: str
    default: ""
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Look how far it is
  fan_out:
    state: looked_at
    run: 0123abcd
"""

RETURN = r"""
ended:
  description: Whether there is nothing more to wait for on this host.
  type: bool
  returned: success
status:
  description: What the program says; state, done and total (bytes), rate (bytes a second), error.
  type: dict
  returned: success
onprem_llm:
  description: The same status, as C(fan_out), for the caller.
  type: dict
  returned: for stopped
"""

ENDED = {"serving", "done", "failed", "measured", "stopped"}


def run(*command):
    """Run a command and return (exit code, output with its errors)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def others(order):
    """Return the addresses of the run's other hosts."""
    return [host["address"] for rank, host in enumerate(order["hosts"]) if rank != order["rank"]]


class Part:
    """This host's part in one run."""

    def __init__(self, name, folder):
        """Nothing is made yet."""
        self.unit = f"onprem-llm-fan-out-{name}.service"
        self.folder = Path(folder, f"onprem-llm-fan-out-{name}")

    def start(self, order, secret, program, measure):
        """Write what the program reads, and start it."""
        self.stop()
        self.folder.mkdir(mode=0o700)
        try:
            self._start(order, secret, program, measure)
        except (OSError, ValueError, subprocess.SubprocessError):
            self.stop()
            raise

    def _start(self, order, secret, program, measure):
        for name, data in (
            ("order.json", json.dumps(order).encode()),
            ("secret", secret.encode()),
            ("fan_out.zip", base64.b64decode(program)),
            ("firewall", script(order["port"], others(order)).encode()),
        ):
            handle = os.open(str(self.folder / name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
        words = [sys.executable, "-m", "fan_out", str(self.folder), *(["--measure"] if measure else [])]
        # StandardError=append: is newer than the systemd of EL 8; and systemd takes a $ in a command for its own.
        command = f"exec {' '.join(map(shlex.quote, words))} 2>> {shlex.quote(str(self.folder / 'log'))}"
        firewall = f"/bin/sh {self.folder / 'firewall'}"
        code, text = run(
            *("systemd-run", "--quiet", "--collect", "--unit", self.unit),
            *("--description", "onprem-llm passes files on"),
            *("--property", "NoNewPrivileges=yes", "--property", "UMask=0022"),
            *("--property", f"ExecStartPre={firewall} open", "--property", f"ExecStopPost={firewall} close"),
            *("--setenv", f"PYTHONPATH={self.folder / 'fan_out.zip'}", "/bin/sh", "-c", command),
        )
        if code:
            raise OSError(f"systemd-run failed: {text}")

    def status(self):
        """Return what the program said last; one that is gone without a word has failed."""
        try:
            found = json.loads((self.folder / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {"state": "starting"}
        if found["state"] not in ENDED and run("systemctl", "is-active", "--quiet", self.unit)[0]:
            found = {**found, "state": "failed", "error": self.last_words() or "its process is gone"}
        return found

    def last_words(self):
        """Return the last line of its log."""
        try:
            lines = (self.folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.strip()), "")

    def stop(self):
        """End it and remove its folder; tell whether there was any."""
        found = self.folder.exists()
        run("systemctl", "stop", self.unit)
        shutil.rmtree(str(self.folder), ignore_errors=True)
        return found


def act(part, params):
    """Do what is asked; return the module's answer."""
    if params["state"] == "started":
        part.start(params["order"], params["secret"], params["program"], params["measure"])
        return {"changed": True}
    status = part.status() if part.folder.exists() else {"state": "stopped"}
    if params["state"] == "looked_at":
        return {"changed": False, "status": status, "ended": status["state"] in ENDED}
    return {"changed": part.stop(), "status": status, "onprem_llm": {"fan_out": status}}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "looked_at", "stopped"], "required": True},
            "run": {"type": "str", "required": True},
            "folder": {"type": "path", "default": "/run"},
            "measure": {"type": "bool", "default": False},
            "order": {"type": "dict", "default": {}},
            "secret": {"type": "str", "default": "", "no_log": True},
            "program": {"type": "str", "default": ""},
        }
    )
    try:
        answer = act(Part(module.params["run"], module.params["folder"]), module.params)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot take part in passing files on: {error}", invocation={})
    module.exit_json(invocation={}, **answer)


if __name__ == "__main__":
    main()
