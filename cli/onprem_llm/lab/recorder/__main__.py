"""python3 -m recorder FOLDER [SUBNET]: write each attempt to reach the outside to FOLDER/attempts.jsonl, until SIGTERM.

It listens and holds nothing up: the way out is a router that is not there (dead_end.py), so nothing is ever answered,
and what was asked stands while we look who asked. FOLDER/state.json says every second that it is at work, and how many
packets the kernel could not hand over: a rehearsal that lost one proves nothing. With SUBNET it makes the dead end,
too, once it listens.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import OrderedDict
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from .askers import Askers
from .dead_end import close
from .packets import FILTER, LONGEST, Packet, parse
from .recent import since_boot
from .routes import Routes

SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_ATTACH_FILTER, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 26, 33, 35
ETH_P_ALL = 3
OUTGOING = 4
BUFFER = 64 * 1024 * 1024
# Repeated SYNs and questions of one socket are one attempt; a forwarded copy follows within a moment.
SAME_S = 180
COPY_S = 2
LOOK_S = 0.01


class Seen:
    """What was seen a moment ago; `new` says whether something was not, and remembers it."""

    def __init__(self, seconds: float) -> None:
        """Forget after `seconds`."""
        self._seconds = seconds
        self._times: OrderedDict[object, float] = OrderedDict()

    def new(self, key: object) -> bool:
        """Return whether `key` was not seen; it is from now on."""
        now = time.monotonic()
        while self._times and next(iter(self._times.values())) < now - self._seconds:
            self._times.popitem(last=False)
        known = key in self._times
        if not known:
            self._times[key] = now
        return not known

    def __contains__(self, key: object) -> bool:
        """Return whether it was seen; it is not remembered."""
        return key in self._times and self._times[key] >= time.monotonic() - self._seconds


class Recorder:
    """One host's recorder."""

    def __init__(self, folder: Path) -> None:
        """Open the socket at once: from here on nothing is missed."""
        self._socket = _listen()
        self._askers, self._routes = Askers(), Routes()
        self._attempts, self._forwarded = Seen(SAME_S), Seen(COPY_S)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state_path = folder / "state.json"
        # Another line a boot: what was recorded before a reboot stays.
        self._file: TextIO = (folder / "attempts.jsonl").open("a", encoding="utf-8", buffering=1)
        self._packets = self._recorded = 0
        self._lost, self._starts = _before(self._state_path)
        self._began, self._said = _now(), 0.0

    def run(self) -> None:
        """Record until a SIGTERM comes as SystemExit."""
        self.say()
        while True:
            ready, _, _ = select.select([self._socket], [], [], LOOK_S)
            self._askers.look()
            if ready:
                data, extra, _, (interface, ethertype, kind, *_) = self._socket.recvmsg(LONGEST, 64)
                packet = parse(ethertype, data)
                if packet is not None:
                    self._look_at(packet, _moment(extra), str(interface), kind == OUTGOING)
            if time.monotonic() - self._said >= 1:
                self.say()

    def _look_at(self, packet: Packet, moment: float, interface: str, outgoing: bool) -> None:
        """Record a packet that is for the outside: the host's own on its way out, a container's on its way in."""
        if interface == "lo" or not self._routes.outside(packet.destination):
            return
        if (interface in self._routes.uplinks()) != outgoing:
            return  # what others send on the same cable, or a bridge hands on
        if outgoing and packet.mark in self._forwarded:
            return  # a container's, behind docker's NAT: seen when it came
        if not outgoing:
            self._forwarded.new(packet.mark)
        key = (packet.protocol, packet.source, packet.source_port, packet.destination, packet.port, packet.name)
        if self._attempts.new(key):
            self._record(packet, moment, outgoing)

    def _record(self, packet: Packet, moment: float, own: bool) -> None:
        uptime = moment - time.time() + since_boot()
        asker = self._askers.find(packet.protocol, packet.source, packet.source_port, own, uptime)
        line = {"time": _written(moment), **packet._asdict(), **asker}
        del line["mark"]
        self._file.write(json.dumps(line, sort_keys=True) + "\n")
        self._recorded += 1

    def say(self, ended: bool = False) -> None:
        """Write the state; whole or not at all."""
        packets, lost = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._packets, self._lost, self._said = self._packets + packets, self._lost + lost, time.monotonic()
        state = {
            "pid": os.getpid(), "began": self._began, "now": _now(), "ended": ended,
            "packets": self._packets, "lost": self._lost, "recorded": self._recorded,
            "starts": self._starts,
        }  # fmt: skip
        draft = self._state_path.with_suffix(".new")
        draft.write_text(json.dumps(state, sort_keys=True) + "\n", "utf-8")
        draft.replace(self._state_path)


def _before(path: Path) -> tuple[int, int]:
    """Return how many packets earlier starts lost, and which start this is. One that ended well does not count."""
    try:
        state = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return 0, 1
    return state["lost"], state["starts"] + (0 if state["ended"] else 1)


def _listen() -> socket.socket:
    """Return a socket that gets what of every interface the filter lets through."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in FILTER))
    made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(FILTER), ctypes.addressof(program)))
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return made


def _now() -> str:
    return _written(time.time())


def _written(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")


def _moment(extra: list[tuple[int, int, bytes]]) -> float:
    """Return when the kernel saw a packet, in seconds of the Unix clock."""
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack_from("@qq", data)
            return float(seconds) + float(nanoseconds) / 1e9
    return time.time()


def _stop(signum: int, frame: object) -> None:
    raise SystemExit(0)


def main() -> None:
    """Run until SIGTERM."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    # Who is first finds the process that is about to end.
    with contextlib.suppress(OSError):
        os.nice(-10)
    recorder = Recorder(Path(sys.argv[1]))
    for subnet in sys.argv[2:]:
        close(subnet)
    try:
        recorder.run()
    finally:
        recorder.say(ended=True)


if __name__ == "__main__":
    main()
