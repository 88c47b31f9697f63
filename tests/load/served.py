"""A deployment of replicas behind the gateway, with a key of its own and the steady load on it."""

import contextlib
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.conftest import Site
from tests.load.driver import Load
from tests.load.rehearsal import Rehearsal, Replica, until

# Streams that last: at 0.02 s a token, 8 tokens take 160 ms, so that three requests or so are always in flight.
STUB = """\
api_version: 1
name: {name}
model: model
engine: {{image: "onprem-llm/stub-engine:1", engine_args: {{max_model_len: 512}}}}
resources: {{gpus: 0, hosts: [{hosts}]}}
replicas: {replicas}
port: {port}
env: {{STUB_PACE: "0.02"}}
timeouts: {{start: 60, readiness: 20}}
"""


def stub_text(rehearsal: Rehearsal, name: str, *, port: int = 8000, replicas: int = 2, extra: str = "") -> str:
    """Return a model.yaml for the stub on the first hosts; the third has no engine."""
    hosts = ", ".join(rehearsal.hosts[:replicas])
    return STUB.format(name=name, hosts=hosts, port=port, replicas=replicas) + extra


def descendants(pid: int) -> list[int]:
    """Return a process and all that it started, in whatever session they are."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = (int(word) for word in line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


@contextlib.contextmanager
def background(site: Site, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run onprem-llm; when the block is left it is killed, with all that it started, as by a power cut."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("onprem-llm"), *arguments],
        cwd=site.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            for pid in descendants(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
        process.wait()


class Served:
    """A deployment of replicas with a key of its own, ready to be loaded."""

    def __init__(self, rehearsal: Rehearsal, name: str, text: str, **load: object) -> None:
        self.rehearsal, self.site, self.name, self.text = rehearsal, rehearsal.site, name, text
        self.file = f"{name}.yaml"
        self.more = load
        # A key by a name that no other run has used: counters of a name live on.
        self.user = f"{name}-{secrets.token_hex(3)}"
        self.key = ""

    def write(self, *changes: tuple[str, str]) -> None:
        """Write the model.yaml, with pieces of it exchanged."""
        text = self.text
        for old, new in changes:
            assert old in text, f"{old!r} is not in the model.yaml"
            text = text.replace(old, new)
        self.site.write(self.file, text)

    def deploy(self, *changes: tuple[str, str], code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Write and deploy."""
        self.write(*changes)
        return self.site.run("deploy", self.file, "--yes", code=code, timeout=1200)

    @contextlib.contextmanager
    def load(self, **more: object) -> Iterator[Load]:
        """Put the steady load on it; when the block is left well, all answers are in."""
        settings = {"model": self.name, "key": self.key, **self.more, **more}
        with Load(self.rehearsal.settings(**settings)) as load:
            yield load.warm()

    def replicas(self) -> dict[str, Replica]:
        """Return its containers."""
        return self.rehearsal.replicas(self.name)

    def up(self) -> list[str]:
        """Name the replicas that take requests."""
        return self.rehearsal.up(self.name)

    def in_rotation(self, count: int = 2, seconds: float = 60) -> None:
        """Wait until so many replicas take requests."""
        until(lambda: len(self.up()) == count, seconds, f"{count} replicas of {self.name} in rotation")

    def lengths(self) -> dict[str, str]:
        """Return the --max-model-len that each running replica was started with: which revision it is."""
        found = {}
        for name, replica in self.replicas().items():
            match = re.search(r'"--max-model-len","(\d+)"', replica.inspect("json .Config.Cmd"))
            found[name] = match[1] if match else "none"
        return found

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Count the replicas that take requests, again and again while the block runs; a count that fails is raised."""
        seen: list[int] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.5):
                seen.append(len(self.up()))

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            try:
                yield seen
            finally:
                over.set()
            looking.result()

    def births(self) -> dict[str, str]:
        """Return what changes when a replica is replaced."""
        return {name: replica.born for name, replica in self.replicas().items()}


@contextlib.contextmanager
def served(
    rehearsal: Rehearsal, name: str, text: str, replicas: int = 2, *, stays: bool = False, **load: object
) -> Iterator[Served]:
    """Deploy, make a key, and take both away at the end; what `stays` is there for the next who deploys it."""
    one = Served(rehearsal, name, text, **load)
    try:
        one.deploy()
        one.key = rehearsal.key(one.user)
        one.in_rotation(replicas)
        hosts = {replica.host for replica in one.replicas().values()}
        assert len(hosts) == replicas, f"{replicas} replicas were to be on as many hosts, they are on {hosts}"
        yield one
    finally:
        rehearsal.site.run("key", "revoke", one.user, code=None)
        if not stays:
            rehearsal.down(name)
