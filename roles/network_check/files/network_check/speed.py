# SPDX-License-Identifier: Apache-2.0
"""Bandwidth by iperf3: a server for one client, which is gone with it, and never longer than it is needed."""

import contextlib
import json
import subprocess
import time
from pathlib import Path

from .device import iperf3

STREAMS = 4  # one alone does not fill a fast line
SLOW_START = 1  # seconds that are not counted
LISTEN = 5  # seconds that a server may take to listen
GRACE = 8  # seconds beside those of the measurement


class Server:
    """One `iperf3 --server --one-off`."""

    def __init__(self):
        """None runs yet."""
        self.process = None

    def start(self, address, port):
        """Start one, and wait until it listens; return what is wrong, None where nothing is."""
        self.stop()
        command = [iperf3() or "iperf3", "--server", "--one-off", "--bind", address, "--port", str(port)]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            return f"iperf3: {error.strerror}"
        until = time.monotonic() + LISTEN
        while not listens(port):
            if self.process.poll() is not None:
                said = self.process.stdout.read().decode("utf-8", "replace").strip()
                return f"iperf3 ended: {said[-200:] or self.process.returncode}"
            if time.monotonic() > until:
                return f"iperf3 does not listen on port {port} after {LISTEN} s"
            time.sleep(0.02)
        return None

    def stop(self):
        """End it, where it has not ended with its client."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def listens(port, tables=("/proc/net/tcp", "/proc/net/tcp6")):
    """Tell whether a process listens on a port; asked of the kernel, since a connection would be the one client."""
    wanted = f":{port:04X}"
    for table in tables:
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == "0A":
                    return True
    return False


def measured(order, rank, reverse):
    """Run the client against the server of a host, `reverse`: have the server send.

    Returns rate (bit/s that came), again (segments sent again), busy (percent of a core, of the busier side), or error.
    """
    command = [
        iperf3() or "iperf3", "--client", order.hosts[rank][1], "--bind", order.address, "--port",
        str(order.speed_port), "--time", f"{order.seconds:.0f}", "--omit", str(SLOW_START), "--parallel", str(STREAMS),
        "--connect-timeout", "3000", "--json", *(["--reverse"] if reverse else []),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=order.seconds + SLOW_START + GRACE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"iperf3 came to no end within {order.seconds + SLOW_START + GRACE:.0f} s"}
    except OSError as error:
        return {"error": f"iperf3: {error.strerror}"}
    return told(done.stdout.decode("utf-8", "replace"))


def told(text):
    """Read what iperf3 --json printed."""
    try:
        said = json.loads(text)
        if said.get("error"):
            return {"error": "iperf3: {}".format(said["error"])[:300]}
        end = said["end"]
        cpu = end.get("cpu_utilization_percent") or {}
        return {
            "rate": float(end["sum_received"]["bits_per_second"]),
            "again": end["sum_sent"].get("retransmits"),
            "busy": max(float(cpu.get("host_total", 0)), float(cpu.get("remote_total", 0))),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"error": f"iperf3 said nothing that can be read: {text.strip()[-200:]}"}
