"""From a packet to the attempt that it begins: the first packet of a TCP connection, any UDP, an ICMP echo."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

ETH_P_IP = 0x0800
ETH_P_IPV6 = 0x86DD
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}
ECHO = {ICMP: 8, ICMPV6: 128}
SYN, ACK = 0x02, 0x10
DNS_PORT = 53
LONGEST = 2048

# A classic BPF program (code, jump if true, jump if false, value) over the network header: it lets through what may
# begin an attempt, so that gigabytes between hosts cost nothing here. Of TCP only SYN without ACK.
_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
FILTER = (
    (0x28, 0, 0, _PROTOCOL),
    (0x15, 0, 5, ETH_P_IP),
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 9, TCP),
    (0xB1, 0, 0, 0),  # X = the header's length
    (0x50, 0, 0, 13),  # TCP's flags
    (0x05, 0, 0, 4),
    (0x15, 0, 6, ETH_P_IPV6),
    (0x30, 0, 0, 6),  # the next header
    (0x15, 0, 3, TCP),
    (0x30, 0, 0, 40 + 13),  # TCP's flags
    (0x54, 0, 0, SYN | ACK),
    (0x15, 0, 1, SYN),
    (0x06, 0, 0, LONGEST),
    (0x06, 0, 0, 0),
)


class Packet(NamedTuple):
    """What begins an attempt. `mark` tells a forwarded copy by what a NAT leaves as it is."""

    protocol: str
    source: str
    source_port: int
    destination: str
    port: int
    name: str | None
    mark: tuple[object, ...]


def parse(ethertype: int, data: bytes) -> Packet | None:
    """Return the attempt that a packet (from its network header on) begins; None if it begins none."""
    try:
        if ethertype == ETH_P_IP:
            return _ipv4(data)
        if ethertype == ETH_P_IPV6:
            return _ipv6(data)
    except (struct.error, IndexError, ValueError):
        pass  # cut off: nothing that a host of ours would send
    return None


def _ipv4(data: bytes) -> Packet | None:
    header = (data[0] & 0x0F) * 4
    if struct.unpack_from("!H", data, 6)[0] & 0x1FFF:
        return None  # a later fragment
    return _transport(data[9], data[12:16], data[16:20], data[header:])


def _ipv6(data: bytes) -> Packet | None:
    return _transport(data[6], data[8:24], data[24:40], data[40:])


def _transport(protocol: int, source: bytes, destination: bytes, data: bytes) -> Packet | None:
    here, there = str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination))
    if protocol == TCP:
        source_port, port, sequence = struct.unpack_from("!HHI", data)
        if data[13] & (SYN | ACK) != SYN:
            return None
        return Packet("tcp", here, source_port, there, port, None, ("tcp", there, port, sequence))
    if protocol == UDP:
        source_port, port = struct.unpack_from("!HH", data)
        name = dns_name(data[8:]) if port == DNS_PORT else None
        return Packet("udp", here, source_port, there, port, name, ("udp", there, port, data[8:]))
    if protocol in ECHO:
        # Of a NAT's copy the identifier differs, too; the sequence and the payload, which holds the time, do not.
        wanted = data[0] == ECHO[protocol]
        return Packet("icmp", here, 0, there, 0, None, ("icmp", there, data[6:])) if wanted else None
    return Packet(f"ip-{protocol}", here, 0, there, 0, None, (protocol, there, data[:64]))


def dns_name(message: bytes) -> str | None:
    """Return the name that a DNS query asks for; None if this is no query."""
    if len(message) < 13 or message[2] & 0x80 or struct.unpack_from("!H", message, 4)[0] < 1:
        return None
    labels, at = [], 12
    while at < len(message) and message[at]:
        size = message[at]
        if size > 63 or at + 1 + size > len(message):
            return None
        label = message[at + 1 : at + 1 + size].decode("ascii", "replace")
        labels.append("".join(letter if letter.isprintable() else "?" for letter in label))
        at += 1 + size
    return ".".join(labels) or "."
