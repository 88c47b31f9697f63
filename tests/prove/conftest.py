"""A rehearsal host of network namespaces: `host` with a way out that ends at once, `peer` beside it, `box` in it.

`box` stands for a container: a network of its own behind a bridge of the host, with NAT as docker has it.
"""

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import onprem_llm.lab

ROOM = Path(onprem_llm.lab.__file__).parent
SUBNET = "10.219.7.0/24"
HOST, PEER, BRIDGE, BOX = "10.219.7.11", "10.219.7.12", "10.220.7.1", "10.220.7.2"
# What the recorder's dead end gives the host, and what the box has in a network of its own.
HOST6, BRIDGE6, BOX6 = "fd6f:6e70:7265:6d00::b", "fd00:220:7::1", "fd00:220:7::2"
NUMBERS = itertools.count(1)

Line = dict[str, object]


def run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Net:
    """The three namespaces; `prefix` keeps them apart from others' on this machine."""

    prefix: str
    folder: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    recorder: subprocess.Popen[bytes] | None = None

    def argv(self, place: str, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.prefix}{place}", *argv]

    def run(self, place: str, *argv: str, check: bool = True) -> str:
        return run(*self.argv(place, *argv), check=check)

    def start(self, place: str, *argv: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(self.argv(place, *argv), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.children.append(child)
        return child

    def python(self, place: str, code: str, *argv: str) -> subprocess.Popen[bytes]:
        """Run a Python program there; its command line is how a test knows it again."""
        return self.start(place, "/usr/bin/python3", "-c", code, *argv)

    def record(self) -> None:
        """Start the recorder and wait until it says that it is at work."""
        state = self.folder / "state.json"
        before = state.read_text() if state.exists() else ""
        self.recorder = self.start("host", "/usr/bin/python3", "-m", "recorder", str(self.folder), SUBNET, cwd=ROOM)
        deadline = time.monotonic() + 20
        while not state.exists() or state.read_text() == before:
            assert self.recorder.poll() is None, self.recorder.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def lines(self) -> list[Line]:
        path = self.folder / "attempts.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]

    def state(self) -> Line:
        return json.loads((self.folder / "state.json").read_text())

    def wait(self, wanted: Callable[[Line], bool], seconds: float = 20) -> Line:
        """Return the first attempt that is wanted; fail with all that there are."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = next((line for line in self.lines() if wanted(line)), None)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError("\n".join(map(str, self.lines())) or "nothing was recorded")

    def build(self) -> None:
        for place in ("host", "peer", "box"):
            run("ip", "netns", "add", f"{self.prefix}{place}")
            self.run(place, "ip", "link", "set", "lo", "up")
        pair = ["type", "veth", "peer", "name", "eth0", "netns"]
        self.run("host", "ip", "link", "add", "eth0", *pair, f"{self.prefix}peer")
        self.run("host", "ip", "link", "add", "veth-box", *pair, f"{self.prefix}box")
        self.run("host", "ip", "link", "add", "br-box", "type", "bridge")
        self.run("host", "ip", "link", "set", "veth-box", "master", "br-box")
        for place, link, address in (
            ("host", "eth0", HOST), ("peer", "eth0", PEER), ("host", "br-box", BRIDGE), ("box", "eth0", BOX)
        ):  # fmt: skip
            self.run(place, "ip", "address", "add", f"{address}/24", "dev", link)
            self.run(place, "ip", "link", "set", link, "up")
        self.run("host", "ip", "link", "set", "veth-box", "up")
        self.run("box", "ip", "route", "add", "default", "via", BRIDGE)
        for place, link, address in (("host", "br-box", BRIDGE6), ("box", "eth0", BOX6)):
            self.run(place, "ip", "address", "add", f"{address}/64", "dev", link, "nodad")
        self.run("box", "ip", "route", "add", "default", "via", BRIDGE6)
        for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.run("host", "sh", "-c", f"echo 1 > /proc/sys/net/{switch}")
        self.run(
            "host", "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.220.7.0/24", "!", "-o", "br-box",
            "-j", "MASQUERADE",
        )  # fmt: skip

    def remove(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        for place in ("host", "peer", "box"):
            run("ip", "netns", "del", f"{self.prefix}{place}", check=False)
            shutil.rmtree(f"/etc/netns/{self.prefix}{place}", ignore_errors=True)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """The namespaces with the recorder at work in `host`."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "iptables"))):
        pytest.skip("network namespaces need root, ip and iptables")
    made = Net(f"prove{os.getpid()}-{next(NUMBERS)}-", tmp_path / "recorder")
    try:
        # `ip netns exec` mounts it over /etc/resolv.conf, so that the machine's own stays.
        for place in ("host", "peer", "box"):
            resolver = Path(f"/etc/netns/{made.prefix}{place}/resolv.conf")
            resolver.parent.mkdir(parents=True)
            resolver.write_text("nameserver 192.0.2.53\n")
        made.build()
        made.record()
        yield made
    finally:
        made.remove()
