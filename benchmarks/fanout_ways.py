"""The ways of benchmarks/fanout.py to bring one folder from host 0 to the others, and what each costs."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanout_net import Net

PROGRAM = Path(__file__).resolve().parents[1] / "roles" / "fan_out" / "files"
PORT = 7470
CHUNK = 64 * 1024 * 1024
# One host's own transfer, with nothing that can be left out: bytes from a file through a socket into a file.
RAW_RECEIVE = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener, open(sys.argv[3], "wb") as file:
    sock = listener.accept()[0]
    buffer = bytearray(1 << 20)
    while count := sock.recv_into(buffer):
        file.write(memoryview(buffer)[:count])
"""
RAW_SEND = """
import socket, sys
with open(sys.argv[3], "rb") as file, socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:
    sock.sendfile(file)
"""


@dataclass
class Taken:
    """What one transfer took: seconds till the last host had all, seconds of CPU of each host, bytes host 0 sent."""

    seconds: float
    cpu: list[float] = field(default_factory=list)
    sent: int = 0


@dataclass
class Data:
    """What is brought: a folder with one file, as the order describes it."""

    folder: Path
    size: int
    entry: dict[str, Any]


def make_data(folder: Path, size: int) -> Data:
    """Write `size` random bytes."""
    folder.mkdir(parents=True)
    path, whole, chunks = folder / "model.safetensors", hashlib.sha256(), []
    with path.open("wb") as file:
        for at in range(0, size, CHUNK):
            data = os.urandom(min(CHUNK, size - at))
            file.write(data)
            whole.update(data)
            chunks.append(hashlib.sha256(data).hexdigest())
    entry = {"path": path.name, "size": size, "sha256": whole.hexdigest(), "chunks": chunks}
    return Data(folder, size, entry)


@contextlib.contextmanager
def emptied(net: Net) -> Iterator[None]:
    """Give every host an empty folder before and after."""

    def clear() -> None:
        for number in range(1, net.count):
            shutil.rmtree(net.folder_of(number), ignore_errors=True)

    clear()
    for number in range(1, net.count):
        net.folder_of(number).mkdir()
    try:
        yield
    finally:
        clear()


def check(net: Net, data: Data, hosts: Sequence[int]) -> None:
    """Every host has every byte, or no figure counts."""

    def right(number: int) -> bool:
        with (net.folder_of(number) / "data" / data.entry["path"]).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == data.entry["sha256"]

    with ThreadPoolExecutor(4) as pool:
        wrong = [number for number, good in zip(hosts, pool.map(right, hosts), strict=True) if not good]
    if wrong:
        raise RuntimeError(f"hosts {wrong} do not have what was sent")


def raw(net: Net, data: Data) -> Taken:
    """Bring it to host 1 alone."""
    (net.folder_of(1) / "data").mkdir()
    target = net.folder_of(1) / "data" / data.entry["path"]
    address = [net.address(1), str(PORT)]
    receiver = net.start(1, [sys.executable, "-c", RAW_RECEIVE, *address, str(target)])
    net.listens(1, PORT)
    began = time.monotonic()
    sender = net.start(0, [sys.executable, "-c", RAW_SEND, *address, str(data.folder / data.entry["path"])])
    cpu = [net.wait(sender), net.wait(receiver)]
    taken = Taken(time.monotonic() - began, cpu)
    check(net, data, [1])
    return taken


def chain(net: Net, data: Data, hosts: Sequence[int], *, piece: int, kill: tuple[int, float] | None = None) -> Taken:
    """Bring it along a chain; `kill` is (host, seconds after the begin): it loses power."""
    order = [0, *hosts]
    common = {
        "schema": 1, "run": secrets.token_hex(4), "port": PORT, "piece": piece, "chunk_size": CHUNK,
        "files": [data.entry], "hosts": [{"name": f"host{number}", "address": net.address(number)} for number in order],
    }  # fmt: skip
    secret = secrets.token_hex(32)
    running: dict[int, subprocess.Popen[bytes]] = {}
    before = net.sent_by(0)
    for rank, number in reversed(list(enumerate(order))):
        folder = net.folder_of(number)
        place = data.folder if rank == 0 else folder / "data"
        (folder / "order.json").write_text(json.dumps({**common, "rank": rank, "folder": str(place)}))
        (folder / "secret").write_text(secret)
        (folder / "status.json").unlink(missing_ok=True)
        if rank == 0:
            net.listens(order[1], PORT)
            began = time.monotonic()
        argv = [sys.executable, "-m", "fan_out", str(folder)]
        env = {"PYTHONPATH": str(PROGRAM), "PYTHONDONTWRITEBYTECODE": "1"}
        with (folder / "log").open("wb") as log:
            running[number] = net.start(number, argv, env=env, out=log)
    if kill:
        time.sleep(max(0, began + kill[1] - time.monotonic()))
        net.cut(kill[0])
        net.stop(running.pop(kill[0]), signal.SIGKILL)
    rest = [number for number in hosts if number in running]
    ended = _all_done(net, {number: running[number] for number in rest}, began + _longest(net, data))
    sent = net.sent_by(0) - before
    cpu = [net.stop(process) for process in running.values()]
    if kill:
        net.cut(kill[0], off=False)
    check(net, data, rest)
    return Taken(ended - began, cpu, sent)


def _longest(net: Net, data: Data) -> float:
    """Return the seconds after which no figure would be worth the wait: ten times what the line takes, and a minute."""
    return 60 + 10 * data.size * 8 / (net.rate * 1e6)


def _all_done(net: Net, running: dict[int, subprocess.Popen[bytes]], until: float) -> float:
    """Wait for every host; return when the last one had all, by the monotonic clock that all share.

    Raises RuntimeError for one that failed, that ended before it had all, or that has not at `until`.
    """
    ended: dict[int, float] = {}
    while len(ended) < len(running):
        time.sleep(0.1)
        for number in running.keys() - ended.keys():
            # Looked at before its word is read: one that says that it is done may end at once.
            gone = net.ended(running[number])
            status = _status(net, number)
            if status.get("state") == "done":
                ended[number] = status["ended"]
            elif status.get("state") == "failed" or gone is not None:
                raise RuntimeError(str(status.get("error") or f"host {number} ended with {gone}: {_log(net, number)}"))
        late = sorted(running.keys() - ended.keys())
        if late and time.monotonic() > until:
            said = "; ".join(f"host {number}: {_status(net, number)}" for number in late)
            raise RuntimeError(f"hosts {late} do not have all, and time is up: {said}")
    return max(ended.values())


def _status(net: Net, number: int) -> dict[str, Any]:
    path = net.folder_of(number) / "status.json"
    status: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return status


def _log(net: Net, number: int) -> str:
    lines = (net.folder_of(number) / "log").read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


def mbuffer(net: Net, data: Data, hosts: Sequence[int]) -> Taken:
    """Bring it along a chain of mbuffers, which check nothing."""
    name, running = data.entry["path"], []
    for number, following in reversed(list(zip(hosts, [*hosts[1:], None], strict=True))):
        (net.folder_of(number) / "data").mkdir()
        argv = ["mbuffer", "-q", "-m", "16M", "-I", str(PORT), "-o", str(net.folder_of(number) / "data" / name)]
        argv += ["-O", f"{net.address(following)}:{PORT}"] if following is not None else []
        running.append(net.start(number, argv))
        net.listens(number, PORT)
    before, began = net.sent_by(0), time.monotonic()
    argv = ["mbuffer", "-q", "-m", "16M", "-i", str(data.folder / name), "-O", f"{net.address(hosts[0])}:{PORT}"]
    running.append(net.start(0, argv))
    cpu = [net.wait(process) for process in reversed(running)]
    taken = Taken(time.monotonic() - began, cpu, net.sent_by(0) - before)
    check(net, data, hosts)
    return taken


def rsync(net: Net, data: Data, hosts: Sequence[int], *, at_once: bool) -> Taken:
    """Bring it with an rsync a host, one after another or all at once."""
    settings = net.folder / "rsyncd.conf"
    settings.write_text(f"[data]\npath = {data.folder}\nuse chroot = no\nread only = yes\nuid = root\ngid = root\n")
    daemon = net.start(0, ["rsync", "--daemon", "--no-detach", f"--config={settings}", f"--port={PORT}"])
    net.listens(0, PORT)
    before, began, cpu, running = net.sent_by(0), time.monotonic(), [], []
    for number in hosts:
        source = f"rsync://{net.address(0)}:{PORT}/data/"
        running.append(net.start(number, ["rsync", "-rW", source, f"{net.folder_of(number)}/data/"]))
        if not at_once:
            cpu.append(net.wait(running.pop()))
    cpu += [net.wait(process) for process in running]
    taken = Taken(time.monotonic() - began, cpu, net.sent_by(0) - before)
    net.stop(daemon)
    check(net, data, hosts)
    return taken
