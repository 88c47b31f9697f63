"""Who sent a packet: from its source address and port to the socket, from the socket to the process and its container.

A connection that nobody answers stands for minutes, and a question to a name server for seconds: both are found. What
is sent and forgotten (UDP) is looked up the moment it is seen, newest processes first; where the process was quicker,
those that ended just then are named.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from .recent import Recent

CONTAINER = re.compile(r"(?:docker-|/docker/)([0-9a-f]{64})")
UNIT = re.compile(r"([^/]+\.(?:service|scope|timer))\s*$")
DOCKER = Path("/var/lib/docker/containers")
# Where docker's own name server listens in a container's network; it asks outside on its behalf.
EMBEDDED_DNS = ("127.0.0.11", 53)
LONGEST_COMMAND = 2000
PARENTS = 5

Found = dict[str, object]


class Askers:
    """The processes of this host, its containers' among them.

    What is in /proc is listed and read with os, in recent.py too: a Path for each of thousands of names, at every
    packet, would be too slow.
    """

    def __init__(self, proc: Path = Path("/proc"), docker: Path = DOCKER) -> None:
        """Read processes below `proc`, containers below `docker`."""
        self._proc, self._docker = proc, docker
        self._own = self.network(os.getpid())
        self._known: dict[int, tuple[int, str]] = {}
        self._recent = Recent(self, proc)

    def look(self) -> None:
        """See which processes are new; to be called often."""
        self._recent.look()

    def find(self, protocol: str, source: str, port: int, own: bool, moment: float) -> Found:
        """Say who sent from `source` at a moment since boot; `own`: from the host's own network, no container's."""
        spaces = self._spaces()
        if own:
            spaces = {self._own: os.getpid()}
        else:
            spaces.pop(self._own, None)
        for space, member in spaces.items():
            if not own and not self._has_address(member, source):
                continue
            pid = self._holder(self._inodes(member, protocol, source, port))
            inside = None if own else self._on_behalf(member, pid)
            if inside is not None:
                return {**self.describe(inside), "through": self._command(pid) if pid else None}
            if pid is not None:
                found = self.describe(pid)
                ending = str(found["command"]).startswith("[")
                return {**found, "command": self._recent.command(pid) or found["command"]} if ending else found
            return {**_gone(self._recent.ended(space, moment)), "container": None if own else self._container(member)}
        # A container that is gone as a whole: its network is, too.
        ended = [one for one in self._recent.ended(None, moment) if one["network"] != self._own]
        containers = [one["container"] for one in ended]
        agreed = containers[0] if containers and all(one == containers[0] for one in containers) else None
        return {**_gone(ended), "container": agreed}

    def describe(self, pid: int) -> Found:
        """Return what is known of a process."""
        return {
            "pid": pid,
            "command": self._command(pid),
            "parents": list(self._parents(pid)),
            "unit": self._unit(pid),
            "container": self._container(pid),
            "note": None,
        }

    def _spaces(self) -> dict[str, int]:
        """Return the networks of this host's processes, each with one of its processes."""
        found: dict[str, int] = {}
        for pid in self._pids():
            network = self.network(pid)
            if network:
                found.setdefault(network, pid)
        return found

    def _pids(self) -> list[int]:
        return sorted((int(name) for name in os.listdir(self._proc) if name.isdigit()), reverse=True)  # noqa: PTH208

    def network(self, pid: int) -> str:
        """Return which network a process is in; "" for one that is gone."""
        try:
            return os.readlink(self._proc / str(pid) / "ns/net")  # noqa: PTH115
        except OSError:
            return ""

    def _has_address(self, member: int, address: str) -> bool:
        if ":" in address:
            wanted = ipaddress.ip_address(address).packed.hex()
            return wanted in self._text(member, "net/if_inet6")
        return re.search(rf"-- {re.escape(address)}\n\s+/32 host LOCAL", self._text(member, "net/fib_trie")) is not None

    def _inodes(self, member: int, protocol: str, source: str, port: int) -> set[int]:
        """Return the sockets of `protocol` at that address and port, or at that port of every address."""
        found = {True: set[int](), False: set[int]()}
        # A ping without rights has a port of its own kind; one with rights a raw socket.
        tables = ("icmp", "raw", "icmp6", "raw6") if protocol == "icmp" else (protocol, f"{protocol}6")
        for table in tables:
            for local, _, inode in _sockets(self._text(member, f"net/{table}")):
                if protocol == "icmp" or (local[1] == port and local[0] in (source, "0.0.0.0", "::")):  # noqa: S104
                    found[local[0] == source].add(inode)
        return found[True] or found[False]

    def _on_behalf(self, member: int, pid: int | None) -> int | None:
        """Return who in a container waits for docker's name server, where that is who asked."""
        if pid is None or self._comm(pid) != "dockerd":
            return None
        waiting = {
            inode
            for table in ("udp", "tcp")
            for _, remote, inode in _sockets(self._text(member, f"net/{table}"))
            if remote == EMBEDDED_DNS
        }
        return self._holder(waiting)

    def _holder(self, inodes: set[int]) -> int | None:
        """Return the process that holds one of the sockets."""
        if not inodes:
            return None
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        for inode in inodes & self._known.keys():
            pid, path = self._known[inode]
            with contextlib.suppress(OSError):
                if os.readlink(path) in wanted:  # noqa: PTH115
                    return pid
        for pid in self._pids():
            folder = f"{self._proc}/{pid}/fd"
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):  # noqa: PTH208
                    with contextlib.suppress(OSError):
                        inode = wanted.get(os.readlink(f"{folder}/{name}"), 0)  # noqa: PTH115
                        if inode:
                            self._known = {**dict(list(self._known.items())[-200:]), inode: (pid, f"{folder}/{name}")}
                            return pid
        return None

    def _command(self, pid: int) -> str:
        words = [word for word in self._text(pid, "cmdline").split("\0") if word]
        return " ".join(words)[:LONGEST_COMMAND] or f"[{self._comm(pid)}]"

    def _comm(self, pid: int) -> str:
        return self._text(pid, "comm").strip()

    def _parents(self, pid: int) -> Iterator[str]:
        for _ in range(PARENTS):
            # The name stands in parentheses and may hold anything; the parent is the second word after it.
            words = self._text(pid, "stat").rpartition(")")[2].split()
            pid = int(words[1]) if len(words) > 1 else 0
            if pid <= 1:
                return
            yield self._comm(pid)

    def _unit(self, pid: int) -> str | None:
        found = [UNIT.search(line) for line in self._text(pid, "cgroup").splitlines()]
        return next((one[1] for one in found if one and not one[1].startswith("docker-")), None)

    def _container(self, pid: int) -> Found | None:
        """Return name and image, from docker's own files: they are there while the daemon is busy, too."""
        found = CONTAINER.search(self._text(pid, "cgroup"))
        if found is None:
            return None
        name, image = found[1][:12], None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            config = json.loads((self._docker / found[1] / "config.v2.json").read_bytes())
            name, image = str(config.get("Name") or name).lstrip("/"), config.get("Config", {}).get("Image")
        return {"name": name, "image": image}

    def _text(self, pid: int, name: str) -> str:
        try:
            return (self._proc / str(pid) / name).read_bytes().decode("utf-8", "replace")
        except OSError:
            return ""


def _gone(ended: list[Found]) -> Found:
    """Return what is known of a sender whose socket is closed: which processes were there, and ended since."""
    names = "; ".join(str(one["command"]) for one in ended[:3])
    note = "its socket was closed before it could be looked up" + (f"; ended since: {names}" if names else "")
    return {"pid": None, "command": None, "parents": [], "unit": None, "container": None, "note": note}


def _sockets(table: str) -> Iterator[tuple[tuple[str, int], tuple[str, int], int]]:
    """Yield local and remote end and inode of every socket in a table of /proc/net."""
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[9] != "0":
            yield _end(words[1]), _end(words[2]), int(words[9])


def _end(text: str) -> tuple[str, int]:
    """Read 0100007F:0035: words of the address as this machine stores them, then the port."""
    number, _, port = text.partition(":")
    packed = b"".join(struct.pack("=L", int(number[at : at + 8], 16)) for at in range(0, len(number), 8))
    address = ipaddress.ip_address(packed)
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(inner or address), int(port, 16)
