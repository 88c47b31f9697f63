# SPDX-License-Identifier: Apache-2.0
"""A program of a run as a transient systemd unit: the folder that it reads, its open ports, what it says, its end.

The unit is onprem-llm-KIND-RUN.service, the folder /run/onprem-llm-KIND-RUN: order.json and secret for the program,
its log, and status.json, which it writes. Its ports are open while it runs, and systemd has them shut however it ends.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ansible.module_utils.onprem_llm_open_ports import script

# What every module that runs a program so is asked; `order` is for its program, `program` the action plugin adds.
OPTIONS = {
    "state": {"type": "str", "choices": ["started", "looked_at", "stopped"], "required": True},
    "run": {"type": "str", "required": True},
    "folder": {"type": "path", "default": "/run"},
    "order": {"type": "dict", "default": {}},
    "secret": {"type": "str", "default": "", "no_log": True},
    "program": {"type": "str", "default": ""},
}


def run(*command):
    """Run a command and return (exit code, output with its errors)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def others(order):
    """Return the addresses of the run's other hosts."""
    return [host["address"] for rank, host in enumerate(order["hosts"]) if rank != order["rank"]]


class RunUnit:
    """This host's part in one run of a program."""

    def __init__(self, kind, name, folder, description):
        """`kind`: fan-out, say; `name`: the run's; `folder`: where its folder is made. Nothing is made yet."""
        self.program, self.description = kind.replace("-", "_"), description
        self.unit = f"onprem-llm-{kind}-{name}.service"
        self.folder = Path(folder, f"onprem-llm-{kind}-{name}")

    def start(self, params, ports, arguments=(), properties=()):
        """Write what the program reads, and start it; return the module's answer.

        `params`: as OPTIONS; `ports`: (protocol, port) that the other hosts may reach. Raises OSError, ValueError,
        SubprocessError, and leaves nothing then.
        """
        self.stop()
        self.folder.mkdir(mode=0o700)
        try:
            self._write(params, script(ports, others(params["order"])))
            self._begin(arguments, properties)
        except (OSError, ValueError, subprocess.SubprocessError):
            self.stop()
            raise
        return {"changed": True}

    def _write(self, params, firewall):
        for name, data in (
            ("order.json", json.dumps(params["order"]).encode()),
            ("secret", params["secret"].encode()),
            (f"{self.program}.zip", base64.b64decode(params["program"])),
            ("firewall", firewall.encode()),
        ):
            handle = os.open(str(self.folder / name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)

    def _begin(self, arguments, properties):
        words = [sys.executable, "-m", self.program, str(self.folder), *arguments]
        # StandardError=append: is newer than the systemd of EL 8; and systemd takes a $ in a command for its own.
        command = f"exec {' '.join(map(shlex.quote, words))} 2>> {shlex.quote(str(self.folder / 'log'))}"
        firewall = f"/bin/sh {self.folder / 'firewall'}"
        own = ("NoNewPrivileges=yes", "UMask=0022", f"ExecStartPre={firewall} open", f"ExecStopPost={firewall} close")
        code, text = run(
            *("systemd-run", "--quiet", "--collect", "--unit", self.unit, "--description", self.description),
            *(part for one in (*own, *properties) for part in ("--property", one)),
            *("--setenv", f"PYTHONPATH={self.folder / self.program}.zip", "/bin/sh", "-c", command),
        )
        if code:
            raise OSError(f"systemd-run failed: {text}")

    def look(self, state, ended, long=()):
        """Return the module's answer to `looked_at`, in which `long` values are left out, or to `stopped`.

        `ended`: the states after which there is nothing more to wait for.
        """
        status = self.status(ended) if self.folder.exists() else {"state": "stopped"}
        if state == "stopped":
            return {"changed": self.stop(), "status": status, "onprem_llm": {self.program: status}}
        short = {name: value for name, value in status.items() if name not in long}  # it is asked for again and again
        return {"changed": False, "status": short, "ended": status["state"] in ended}

    def status(self, ended):
        """Return what the program said last; one that is gone without a state of `ended` has failed."""
        try:
            found = json.loads((self.folder / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {"state": "starting"}
        if found["state"] not in ended and run("systemctl", "is-active", "--quiet", self.unit)[0]:
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
