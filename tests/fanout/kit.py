"""A run of the fan-out on loopback: every host is a process with an address, a folder and a log of its own."""

import hashlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "fan_out" / "files"
PIECE, CHUNK = 16 * 1024, 128 * 1024
SECRET = "5" * 64
QUICK = {"dead": 4, "patience": 20, "give_up": 30, "linger": 60}
_nets = itertools.count(random.randrange(1, 200))  # noqa: S311  two test runs at once should not meet


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311


def model() -> dict[str, bytes]:
    return {
        "model-1.safetensors": content(1, 1_500_000),
        "model-2.safetensors": content(2, 5 * CHUNK),
        "config.json": b'{"a": 1}',
        "sub/tokenizer.json": content(3, PIECE + 1),
        "sub/empty.txt": b"",
    }


def entry(path: str, data: bytes) -> dict[str, Any]:
    chunks = [hashlib.sha256(data[at : at + CHUNK]).hexdigest() for at in range(0, len(data), CHUNK)]
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "chunks": chunks}


class Chain:
    """`count` hosts, of which 0 has the files."""

    def __init__(self, root: Path, count: int, files: Mapping[str, bytes] | None = None, **order: Any) -> None:
        self.root, self.count, self.files = root, count, dict(model() if files is None else files)
        self.addresses = [f"127.{100 + os.getpid() % 100}.{next(_nets) % 250}.{rank + 1}" for rank in range(count)]
        self.total = sum(map(len, self.files.values()))
        self.common = {
            "schema": 1, "run": "test", "port": 7471, "piece": PIECE, "chunk_size": CHUNK, **QUICK,
            "files": [entry(path, data) for path, data in self.files.items()], **order,
        }  # fmt: skip
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.secrets, self.known = dict.fromkeys(range(count), SECRET), {}
        for rank in range(count):
            self.data(rank).mkdir(parents=True, exist_ok=True)
        self.fill(0)

    def fill(self, rank: int) -> None:
        for path, data in self.files.items():
            target = self.data(rank) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    def host(self, rank: int) -> Path:
        return self.root / f"host{rank}"

    def data(self, rank: int) -> Path:
        return self.host(rank) / "weights" / "model"

    def order(self, rank: int) -> dict[str, Any]:
        """`known` says where a host believes another one to be."""
        hosts = [{"name": f"host{number}", "address": address} for number, address in enumerate(self.addresses)]
        for number, address in self.known.get(rank, {}).items():
            hosts[number]["address"] = address
        return {**self.common, "rank": rank, "folder": str(self.data(rank)), "hosts": hosts}

    def start(self, *ranks: int, more: Sequence[str] = ()) -> "Chain":
        """Start hosts, all of them where none is named; from the tail, so that nobody waits for one who is late."""
        for rank in reversed(ranks or range(self.count)):
            folder = self.host(rank)
            (folder / "order.json").write_text(json.dumps(self.order(rank)))
            (folder / "secret").write_text(self.secrets[rank] + "\n")
            (folder / "status.json").unlink(missing_ok=True)
            with (folder / "log").open("ab") as log:
                self.running[rank] = subprocess.Popen(
                    [sys.executable, "-m", "fan_out", str(folder), *more], stderr=log,
                    env={**os.environ, "PYTHONPATH": str(PROGRAM), "PYTHONDONTWRITEBYTECODE": "1"},
                )  # fmt: skip
        return self

    def kill(self, rank: int, how: int = signal.SIGKILL) -> None:
        self.running[rank].send_signal(how)
        if how != signal.SIGSTOP:
            self.running.pop(rank).wait()

    def stop(self) -> None:
        for rank in list(self.running):
            self.running[rank].send_signal(signal.SIGCONT)
            self.kill(rank, signal.SIGTERM)

    def status(self, rank: int) -> dict[str, Any]:
        path = self.host(rank) / "status.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def log(self, rank: int) -> str:
        path = self.host(rank) / "log"
        return path.read_text() if path.exists() else ""

    def until(self, what: Callable[[], object], seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                logs = "\n".join(f"host{rank}: {self.status(rank)}\n{self.log(rank)}" for rank in range(self.count))
                raise AssertionError(f"not within {seconds} s\n{logs}")
            time.sleep(0.05)

    def until_done(self, *ranks: int) -> None:
        """Wait for hosts, all but the source where none is named, and compare every byte."""
        for rank in ranks or range(1, self.count):
            self.until(lambda rank=rank: self.status(rank).get("state") in ("done", "failed"))
            assert self.status(rank)["state"] == "done", self.status(rank)["error"]
            self.right(rank)

    def right(self, rank: int) -> None:
        there = {str(path.relative_to(self.data(rank))): path for path in self.data(rank).rglob("*") if path.is_file()}
        assert set(there) == set(self.files)
        assert all(path.read_bytes() == self.files[name] for name, path in there.items())

    def until_half(self, rank: int) -> None:
        self.until(lambda: self.status(rank).get("done", 0) > self.total / 2)

    def fails(self, rank: int) -> str:
        """Wait for a host to fail, and return what it says."""
        self.until(lambda: self.running[rank].poll() is not None)
        assert self.running.pop(rank).returncode == 1
        return self.log(rank)


class Flipper:
    """A line between two hosts that changes bytes on their way from the one that serves."""

    def __init__(self, chain: Chain, before: int, after: int, spoil: Callable[[int, bytearray], None]) -> None:
        """`spoil(offset, data)` may change what comes at an offset of all that was sent."""
        self.to, self.source, self.spoil, self.passed = chain.addresses[before], chain.addresses[after], spoil, 0
        address = chain.addresses[before].rpartition(".")[0] + ".200"
        self.listener = socket.create_server((address, chain.common["port"]))
        chain.known[after] = {before: address}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            try:
                far = socket.create_connection(
                    (self.to, self.listener.getsockname()[1]), source_address=(self.source, 0)
                )
            except OSError:  # it does not listen yet
                near.close()
                continue
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, spoiled: bool) -> None:
        try:
            while data := bytearray(source.recv(4096)):
                if spoiled:
                    self.spoil(self.passed, data)
                    self.passed += len(data)
                target.sendall(data)
        except OSError:
            pass
        finally:
            for sock in (source, target):
                sock.close()


def measured(chain: Chain, rates: Mapping[int, int]) -> dict[int, float]:
    """Measure the lines of a chain whose hosts send at most `rates`; bytes a second by host."""
    common = chain.common
    for rank in range(chain.count):
        chain.common = {**common, "bandwidth": rates.get(rank)}
        chain.start(rank, more=["--measure"])
    chain.common = common
    chain.until(lambda: all(chain.status(rank).get("state") == "measured" for rank in range(chain.count)))
    found = {rank: float(chain.status(rank)["rate"]) for rank in range(chain.count)}
    chain.stop()
    return found
