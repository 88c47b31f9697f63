"""Hosts for benchmarks/fanout.py: network namespaces on one bridge, each with a line of one rate both ways.

The bridge has a namespace of its own: under a docker engine, frames on a bridge of the machine's pass its firewall.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

BURST, QUEUE = "192kb", "1mb"


class Net:
    """`count` hosts, host 0 among them; `rate` in Mbit/s."""

    def __init__(self, count: int, rate: int, folder: Path) -> None:
        self.count, self.rate, self.folder = count, rate, folder
        self._tag = f"fo{os.getpid()}"
        self._made: list[str] = []
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Net":
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def _make(self) -> None:
        switch = self._namespace("sw")
        _ip(f"-n {switch} link add br0 type bridge")
        _ip(f"-n {switch} link set br0 up")
        for number in range(self.count):
            name = self._namespace(str(number))
            _ip(f"link add eth0 netns {name} type veth peer name p{number} netns {switch}")
            _ip(f"-n {switch} link set p{number} master br0 up")
            _ip(f"-n {name} addr add {self.address(number)}/16 dev eth0")
            _ip(f"-n {name} link set eth0 up")
            _ip(f"-n {name} link set lo up")
            self.shape(number, self.rate)

    def _namespace(self, what: str) -> str:
        name = f"{self._tag}-{what}"
        _ip(f"netns add {name}")
        self._made.append(name)
        return name

    def name(self, number: int) -> str:
        return f"{self._tag}-{number}"

    @staticmethod
    def address(number: int) -> str:
        return f"10.111.0.{number + 1}"

    def folder_of(self, number: int) -> Path:
        return self.folder / f"host{number}"

    def shape(self, number: int, rate: int) -> None:
        """Give a host's line a rate in Mbit/s, up and down."""
        shaped = f"root tbf rate {rate}mbit burst {BURST} limit {QUEUE}"
        _run(["tc", "-n", self.name(number), "qdisc", "replace", "dev", "eth0", *shaped.split()])
        _run(["tc", "-n", f"{self._tag}-sw", "qdisc", "replace", "dev", f"p{number}", *shaped.split()])

    def cut(self, number: int, *, off: bool = True) -> None:
        """Take a host off the network, as a host without power is: nobody is told."""
        _ip(f"-n {self._tag}-sw link set p{number} {'down' if off else 'up'}")

    def sent_by(self, number: int) -> int:
        """Return the bytes that a host has sent, headers and all."""
        path = "/sys/class/net/eth0/statistics/tx_bytes"
        return int(_run(["ip", "netns", "exec", self.name(number), "cat", path]))

    def start(
        self, number: int, argv: Sequence[str], *, env: dict[str, str] | None = None, out: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host."""
        sink = out if out is not None else subprocess.DEVNULL
        command = ["ip", "netns", "exec", self.name(number), *argv]
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=sink, stderr=sink)
        self._running.append(process)
        return process

    def listens(self, number: int, port: int) -> None:
        """Wait until something listens on a port of a host."""
        until = time.monotonic() + 30
        while not _run(["ip", "netns", "exec", self.name(number), "ss", "-Htln", f"sport = :{port}"]).strip():
            if time.monotonic() > until:
                raise RuntimeError(f"nothing listens on port {port} of host {number}")
            time.sleep(0.02)

    def ended(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the status of a program that has ended, else None; what it took can still be asked for."""
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found.si_status if found else None

    def stop(self, process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> float:
        """End a program and return the seconds of CPU that it took."""
        if process not in self._running:
            return 0.0
        self._running.remove(process)
        # send_signal would take the status of one that has ended, and what it took with it.
        os.kill(process.pid, how)
        return waited(process)

    def wait(self, process: subprocess.Popen[bytes]) -> float:
        """Wait for a program's end and return the seconds of CPU that it took; raises RuntimeError where it failed."""
        self._running.remove(process)
        taken = waited(process)
        if process.returncode:
            raise RuntimeError(f"{shlex.join(map(str, process.args))} ended with {process.returncode}")  # type: ignore[arg-type]
        return taken


def waited(process: subprocess.Popen[bytes]) -> float:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _ip(command: str) -> None:
    _run(["ip", *command.split()])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip()}")
    return done.stdout
