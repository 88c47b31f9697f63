# SPDX-License-Identifier: Apache-2.0
"""Talk to the gateway's processes: a master, one worker, and after reloads old workers that still serve streams."""

import csv
import re
import socket
from pathlib import Path

MASTER = "master.sock"
ADMIN = "admin.sock"
LIMIT = 30  # seconds for one answer; a reload reads the whole configuration
BLOCK = 65536
NO_SUCH_PROCESS = "Can't find the target PID"

# Bits of srv_admin_state: set by the runtime socket, inherited from the configuration or another server, set by DNS.
MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20
DRAIN = 0x08 | 0x10
RUNNING = 2  # srv_op_state: its checks pass


class HaproxyError(Exception):
    """What HAProxy said or did not say; for a person."""


class NotRunningError(HaproxyError):
    """No process answers on the socket."""


def ask(path, command, limit=LIMIT):
    """Send one command and return the answer. NotRunningError where nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(limit)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise NotRunningError(f"nothing answers on {path}: {error.strerror or error}") from None
        try:
            connection.sendall(command.encode() + b"\n")
            # Without this the master waits for the next command.
            connection.shutdown(socket.SHUT_WR)
            parts = list(iter(lambda: connection.recv(BLOCK), b""))
        except OSError as error:
            raise HaproxyError(f"{path} did not answer {command.split(';')[0]!r} within {limit} s: {error}") from None
    return b"".join(parts).decode("utf-8", "replace")


class Worker:
    """One worker process; `old` once it only serves what it had before a reload."""

    def __init__(self, master, pid, old=False):
        """`pid` as the master knows it, inside the container."""
        self.master = master
        self.pid = pid
        self.old = old

    def ask(self, command):
        """Return the answer; an old worker that has ended meanwhile says nothing."""
        answer = ask(self.master, f"@!{self.pid} {command}")
        if answer.startswith(NO_SUCH_PROCESS):
            if self.old:
                return ""
            raise NotRunningError(f"the gateway's worker {self.pid} has ended; its log: docker logs gateway-haproxy-1")
        return answer

    def tell(self, command, silent=("",)):
        """Send a command whose answer says only what is wrong; HaproxyError with that, except for `silent` ones."""
        answer = self.ask(command).strip()
        if answer not in silent:
            raise HaproxyError(f"HAProxy refused {command.split(' ')[0]!r}: {answer}")

    def servers(self):
        """Return {backend/server: {address, port, admin, up, check, sessions}}; `_…` are the gateway's own."""
        found = {}
        for row in rows(self.ask("show servers state"), " "):
            if row["be_name"].startswith("_"):
                continue
            bits = int(row["srv_admin_state"])
            found[f"{row['be_name']}/{row['srv_name']}"] = {
                "address": row["srv_addr"],
                "port": int(row["srv_port"]),
                "admin": "maint" if bits & MAINTENANCE else "drain" if bits & DRAIN else "ready",
                "up": int(row["srv_op_state"]) == RUNNING,
                "check": None,
                "sessions": 0,
            }
        for row in rows(self.ask("show stat -1 4 -1"), ","):
            server = found.get(f"{row['pxname']}/{row['svname']}")
            if server:
                server["sessions"] = int(row["scur"] or 0)
                server["check"] = check_text(row)
        return found


def check_text(row):
    """Say what the last health check found, as `L7OK/200` or `L4CON (Connection refused)`."""
    status = row.get("check_status", "").lstrip("* ")
    if not status:
        return None
    said = row.get("last_chk", "")
    return status + (f"/{row['check_code']}" if row.get("check_code") else "") + (f" ({said})" if said else "")


def rows(answer, separator):
    """Yield the lines of a table whose heading begins with `# ` as dicts."""
    lines = answer.splitlines()
    heading = next((number for number, line in enumerate(lines) if line.startswith("# ")), None)
    if heading is None:
        return []
    lines[heading] = lines[heading][2:]
    table = csv.DictReader((line for line in lines[heading:] if line.strip()), delimiter=separator)
    return [row for row in table if None not in row]


class Gateway:
    """The gateway of a project folder, through the sockets below `run/`."""

    def __init__(self, folder):
        """`folder`: the Compose project's."""
        self.run = Path(folder, "run")
        self.master = self.run / MASTER
        self.admin = self.run / ADMIN

    def workers(self):
        """Return the workers, the one that takes new connections first. NotRunningError where there is none."""
        kind, found = "", []
        for line in ask(self.master, "show proc").splitlines():
            if line.startswith("#"):
                kind = line.lstrip("# ").strip()
                continue
            words = line.split()
            if len(words) > 1 and words[1] == "worker" and kind in ("workers", "old workers"):
                found.append(Worker(self.master, int(words[0]), old=kind == "old workers"))
        if not found or found[0].old:
            raise NotRunningError("the gateway's HAProxy has no worker; its log: docker logs gateway-haproxy-1")
        return found

    def worker(self):
        """Return the worker that takes new connections."""
        return self.workers()[0]

    def reload(self):
        """Start a worker with the files as they are now; HaproxyError with its words if it does not come up.

        The answer is `Success=1` or `Success=0`, a line `--`, and what the new process wrote.
        """
        answer = ask(self.master, "reload", limit=120)
        head, _, said = answer.partition("--")
        if "Success=1" not in head:
            raise HaproxyError(said.strip() or answer.strip() or "the reload was not answered")
        return complaints(said)

    def dump_state(self, target):
        """Write what the next process is to know: who is drained, who is up."""
        text = self.worker().ask("show servers state")
        if not text.startswith("1"):
            raise HaproxyError(f"HAProxy did not tell the state of its servers: {text.strip()[:200]}")
        text = of_configured(text, Path(target).parent.parent / "conf" / "deployments")
        temporary = Path(target).with_name(".new-" + Path(target).name)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)


def of_configured(text, folder):
    """Leave out of `show servers state` whoever the files of `folder` give another place.

    HAProxy would take the old port from there, whatever its configuration says.
    """
    places = {}
    for file in sorted(folder.glob("*.cfg")):
        for name, address, port in re.findall(r"^ +server (\S+) (\S+):(\d+)", file.read_text(encoding="utf-8"), re.M):
            places[(file.stem, name)] = (address.strip("[]"), port)
    kept = []
    for line in text.splitlines(keepends=True):
        words = line.split(" ")
        place = places.get((words[1], words[3])) if len(words) > 18 and words[0].isdigit() else None
        if place is None or place == (words[4], words[18]):
            kept.append(line)
    return "".join(kept)


def complaints(said):
    """Return the lines that are neither progress nor the version."""
    return [line for line in said.splitlines() if re.match(r"\[(WARNING|ALERT)", line)]
