# SPDX-License-Identifier: Apache-2.0
"""The largest packet that a path carries whole: datagrams that may not be cut, and a short answer to each that came.

As `ping -M do -s SIZE` finds out, which not every host has, and ICMP is often shut out.
"""

import contextlib
import errno
import hashlib
import hmac
import ipaddress
import os
import socket
import struct
import threading

SMALLEST = 576  # bytes, headers included: what every path has to carry
TRIES, WAIT = 3, 0.3  # of one size, and seconds for the answer to one
# linux/in.h, linux/in6.h; not in Python's socket module. PROBE: never cut, and what is said of the path is not heeded.
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PROBE = 10, 23, 3
TAG = 16


def tag(secret):
    """Return what the run's datagrams begin with."""
    return hmac.new(secret, b"mtu", hashlib.sha256).digest()[:TAG]


def headers(address):
    """Return the bytes of the IP and UDP headers."""
    return 48 if ipaddress.ip_address(address).version == 6 else 28


def opened(address, port):
    """Return a UDP socket there whose datagrams are never cut."""
    six = ipaddress.ip_address(address).version == 6
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PROBE)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


class Echo(threading.Thread):
    """Answers the run's datagrams with their first bytes and the size that came."""

    def __init__(self, order):
        """Bind; raises OSError."""
        super().__init__(daemon=True)
        self.tag, self.sock = tag(order.secret), opened(order.address, order.port)

    def run(self):
        """Serve until the process ends."""
        while True:
            with contextlib.suppress(OSError):
                data, sender = self.sock.recvfrom(65536)
                if hmac.compare_digest(data[:TAG], self.tag):
                    self.sock.sendto(data[: TAG + 8] + struct.pack("!I", len(data)), sender)


def path_mtu(order, rank, largest):
    """Return the largest packet in bytes, up to `largest`, that gets to a host; None where none does."""
    address = order.hosts[rank][1]
    with opened(order.address, 0) as sock:
        sock.settimeout(WAIT)
        passes = Probe(sock, (address, order.port), tag(order.secret), headers(address)).passes
        if passes(largest):
            return largest
        if not passes(SMALLEST):
            return None
        least, most = SMALLEST, largest  # the one passes, the other does not
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if passes(middle) else (least, middle)
        return least


class Probe:
    """Asks one host for sizes."""

    def __init__(self, sock, there, begin, header):
        """`begin` starts each datagram; `header`: bytes of its headers."""
        self.sock, self.there, self.begin, self.header = sock, there, begin, header

    def passes(self, size):
        """Tell whether a packet of so many bytes gets there."""
        for _ in range(TRIES):
            mark = self.begin + os.urandom(8)
            try:
                self.sock.sendto(mark.ljust(size - self.header, b"\0"), self.there)
                while True:
                    data = self.sock.recvfrom(65536)[0]
                    if data[: len(mark)] == mark:
                        return struct.unpack("!I", data[len(mark) :])[0] == size - self.header
            except OSError as error:
                if error.errno == errno.EMSGSIZE:  # larger than the interface's own
                    return False
        return False
