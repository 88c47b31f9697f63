# SPDX-License-Identifier: Apache-2.0
"""Which ports of a host another one reaches: one listens on each, the other connects."""

import contextlib
import errno
import ipaddress
import selectors
import socket
import time
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
SAMPLES = 8  # of the ports that the kernel gives out
CONNECT = 2.5  # seconds: a lost first packet is sent again after one


class Doors:
    """Ports that listen; nobody accepts, the kernel lets connections in without."""

    def __init__(self, address, fixed):
        """Open those that are free; `taken` has the others."""
        self.sockets, self.taken, self.open = [], [], []
        for port in fixed:
            self._listen(address, port)

    def _listen(self, address, port):
        six = ipaddress.ip_address(address).version == 6
        sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.listen(8)
        except OSError as error:
            sock.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            self.taken.append(port)
            return
        self.sockets.append(sock)
        self.open.append(port)

    def close(self):
        """Close all."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []


def given_out(path=RANGE):
    """Return some of the ports that the kernel gives to who asks for any, which NCCL and Gloo do."""
    try:
        first, last = map(int, path.read_text().split())
    except (OSError, ValueError):
        return []
    return sorted({first + (last - first) * part // (SAMPLES - 1) for part in range(SAMPLES)})


def blocked(source, address, ports):
    """Try ports of a host, all at once; return [[port, why]] of those that could not be reached."""
    found, waiting = [], selectors.DefaultSelector()
    with contextlib.ExitStack() as stack:
        stack.callback(waiting.close)
        for port in ports:
            sock = stack.enter_context(_calling(source))
            code = sock.connect_ex((address, port))
            if code in (0, errno.EINPROGRESS):
                waiting.register(sock, selectors.EVENT_WRITE, port)
            else:
                found.append([port, why(code)])
        until = time.monotonic() + CONNECT
        while waiting.get_map() and time.monotonic() < until:
            for key, _ in waiting.select(max(0.0, until - time.monotonic())):
                waiting.unregister(key.fileobj)
                code = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                found += [[key.data, why(code)]] if code else []
        found += [[key.data, "no answer"] for key in waiting.get_map().values()]
    return sorted(found)


def _calling(source):
    six = ipaddress.ip_address(source).version == 6
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind((source, 0))
    return sock


def why(code):
    """Say in a word why a connection could not be made."""
    return "refused" if code == errno.ECONNREFUSED else errno.errorcode.get(code, str(code))
