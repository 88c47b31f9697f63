"""The program of roles/network_check on hosts of network namespaces: real packets on lines that tc shapes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fanout_net import Net

from onprem_llm.checks.network_rounds import rounds

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "network_check" / "files"
SECRET = "6" * 64
PORT, SPEED_PORT = 7570, 7571
ENGINE_PORTS = list(range(7600, 7604))
QUICK = {"begin": 4, "patience": 2}


class Hosts:
    """The agents on the hosts of a Net; `rate` in Mbit/s."""

    def __init__(self, net: Net, root: Path) -> None:
        self.net, self.root = net, root
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.names = [f"h{rank}" for rank in range(net.count)]

    def order(self, rank: int, seconds: int) -> dict[str, Any]:
        hosts = [{"name": name, "address": self.net.address(number)} for number, name in enumerate(self.names)]
        return {
            "schema": 1, "rank": rank, "hosts": hosts, "port": PORT, "speed_port": SPEED_PORT,
            "rounds": rounds(len(hosts))[rank], "ports": ENGINE_PORTS, "seconds": seconds, **QUICK,
        }  # fmt: skip

    def start(self, *ranks: int, seconds: int = 1, secret: str = SECRET) -> "Hosts":
        for rank in ranks or range(self.net.count):
            folder = self.folder(rank)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "order.json").write_text(json.dumps(self.order(rank, seconds)))
            (folder / "secret").write_text(secret)
            with (folder / "log").open("ab") as log:
                self.running[rank] = self.net.start(
                    rank, [sys.executable, "-m", "network_check", str(folder)], out=log,
                    env={"PYTHONPATH": str(PROGRAM), "PYTHONDONTWRITEBYTECODE": "1"},
                )  # fmt: skip
        return self

    def folder(self, rank: int) -> Path:
        return self.root / f"h{rank}"

    def status(self, rank: int) -> dict[str, Any]:
        path = self.folder(rank) / "status.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def until(self, what: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not what():
            logs = [f"{rank}: {self.status(rank)} {(self.folder(rank) / 'log').read_text()}" for rank in self.running]
            assert time.monotonic() < end, f"not within {seconds} s\n" + "\n".join(logs)
            time.sleep(0.05)

    def done(self, *ranks: int) -> dict[tuple[int, int], dict[str, Any]]:
        """Wait for hosts, all where none is named; return what the pairs' leaders say, by pair."""
        ranks = ranks or tuple(self.running)
        self.until(lambda: all(self.status(rank).get("state") in ("done", "failed") for rank in ranks))
        assert [self.status(rank)["state"] for rank in ranks] == ["done"] * len(ranks)
        pairs = [pair for rank in ranks for pair in self.status(rank)["pairs"]]
        return {(one["a"], one["b"]): one for one in pairs if "links" in one or "unmet" in one}

    def in_host(self, rank: int, *argv: str) -> str:
        command = ["ip", "netns", "exec", self.net.name(rank), *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def kill(self, rank: int) -> None:
        process = self.running.pop(rank)
        self.net.stop(process, signal.SIGKILL)

    def stop(self) -> None:
        for process in self.running.values():
            self.net.stop(process)
        self.running = {}


def link(pair: dict[str, Any], start: int) -> dict[str, Any]:
    """Return what a pair measured from one of its hosts to the other."""
    return next(one for one in pair["links"] if one["from"] == start)


def cpus() -> int:
    return len(os.sched_getaffinity(0))
