"""What is outside: an address that only a default route leads to. Read each time, since containers bring networks."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REJECT = 0x0200
# Never leave the link: neighbours, mDNS, VRRP.
LINK_LOCAL = tuple(ipaddress.ip_network(one) for one in ("224.0.0.0/24", "255.255.255.255/32", "fe80::/10"))
LINK_LOCAL_MULTICAST = (1, 2)  # the scopes of IPv6: interface, link


class Route(NamedTuple):
    """A line of the kernel's table."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    interface: str


class Routes:
    """The routes of this host, as the kernel says them at the moment of the question."""

    def __init__(self, proc: Path = Path("/proc/net")) -> None:
        """Read the tables below `proc`."""
        self._proc = proc

    def uplinks(self) -> set[str]:
        """Name the interfaces of the default routes."""
        return {route.interface for route in [*self._v4(), *self._v6()] if route.network.prefixlen == 0}

    def outside(self, address: str) -> bool:
        """Return whether nothing but a default route, or nothing at all, leads to `address`."""
        wanted = ipaddress.ip_address(address)
        if wanted.is_loopback or wanted.is_unspecified or _stays_on_the_link(wanted):
            return False
        table = self._v4() if wanted.version == 4 else self._v6()
        return not any(route.network.prefixlen and wanted in route.network for route in table)

    def _v4(self) -> Iterator[Route]:
        for line in self._lines("route")[1:]:
            interface, destination, _, flags, _, _, _, mask, *_ = line.split()
            if int(flags, 16) & REJECT:
                continue
            address = socket.inet_ntoa(struct.pack("=L", int(destination, 16)))
            yield Route(ipaddress.IPv4Network((address, bin(int(mask, 16)).count("1"))), interface)

    def _v6(self) -> Iterator[Route]:
        for line in self._lines("ipv6_route"):
            destination, length, *_, flags, interface = line.split()
            # Multicast's route leads everywhere on the link, and says nothing of where an address is.
            if int(flags, 16) & REJECT or destination.startswith("ff"):
                continue
            yield Route(ipaddress.IPv6Network((bytes.fromhex(destination), int(length, 16))), interface)

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._proc / name).read_text("ascii").splitlines()
        except FileNotFoundError:  # a kernel without IPv6
            return []


def _stays_on_the_link(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.is_multicast:
        return address.packed[1] & 0x0F in LINK_LOCAL_MULTICAST
    return any(address in network for network in LINK_LOCAL if network.version == address.version)
