"""What a Linux machine is: system, disks, addresses, listening ports. Reads /proc and /sys only, starts no process."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import platform
import re
import socket
import struct
import time
from pathlib import Path

SIOCGIFCONF = 0x8912
IFREQ_SIZE = 40  # bytes of one struct ifreq on 64-bit Linux
DOCKER_BRIDGE = re.compile(r"^(docker\d+|docker_gwbridge|br-[0-9a-f]{12})$")
TCP_LISTEN = "0A"


def read_text(path, default=""):
    """Return a small file's text, or `default` where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return default


def key_values(text):
    """Parse os-release's KEY="value" lines."""
    found = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            found[key.strip()] = value.strip().strip("\"'")
    return found


def memory():
    """Return (total, available) memory in bytes."""
    found = {}
    for line in read_text("/proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        fields = value.split()
        if fields:
            found[key] = int(fields[0]) * 1024
    return found.get("MemTotal"), found.get("MemAvailable")


def host():
    """Return the host's system, as the `host` part of the probe."""
    release = key_values(read_text("/etc/os-release") or read_text("/usr/lib/os-release"))
    total, available = memory()
    return {
        "hostname": socket.gethostname(),
        "os_id": release.get("ID", "unknown"),
        "os_version": release.get("VERSION_ID", ""),
        "os_name": release.get("PRETTY_NAME", "unknown"),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "now": int(time.time()),
        "boot_id": read_text("/proc/sys/kernel/random/boot_id").strip(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_total": total,
        "memory_available": available,
        "python": platform.python_version(),
    }


def disk(path):
    """Return free and total bytes at `path`, measured at its nearest existing parent.

    `device` is the file system's number: paths with the same one share the free bytes.
    """
    existing = Path(path)
    while not existing.is_dir():
        existing = existing.parent
    stat = os.statvfs(existing)
    return {
        "path": path,
        "free": stat.f_bavail * stat.f_frsize,
        "total": stat.f_blocks * stat.f_frsize,
        "device": existing.stat().st_dev,
    }


def _ipv4_addresses():
    """Yield (interface, address) for every IPv4 address of the host, aliases too."""
    room = array.array("B", bytes(IFREQ_SIZE * 512))
    address, _ = room.buffer_info()
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        answer = fcntl.ioctl(probe.fileno(), SIOCGIFCONF, struct.pack("iL", len(room), address))
    used = struct.unpack("iL", answer)[0]
    data = room.tobytes()[:used]
    for start in range(0, used, IFREQ_SIZE):
        name = data[start : start + 16].split(b"\0", 1)[0].decode()
        yield name, socket.inet_ntoa(data[start + 20 : start + 24])


def _ipv6_addresses():
    """Yield (interface, address) for every global IPv6 address of the host."""
    for line in read_text("/proc/net/if_inet6").splitlines():
        digits, _, _, scope, _, name = line.split()
        if scope == "00":
            yield name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))


def interfaces():
    """Return {address: interface} of the host's own addresses, loopback and docker's bridges left out."""
    found = {}
    for name, address in [*_ipv4_addresses(), *_ipv6_addresses()]:
        inner = address.startswith("127.") or address == "::1" or DOCKER_BRIDGE.match(name)
        if not inner:
            # An alias (eth0:1) is an address of the interface that it is named after.
            found.setdefault(address, name.partition(":")[0])
    return found


def rdma(root="/sys/class/infiniband", devices="/dev/infiniband"):
    """Return {mlx5_0:1: whether it is up} of the RDMA ports, where containers can be given the devices."""
    states = sorted(Path(root).glob("*/ports/*/state")) if Path(devices).is_dir() else ()
    return {f"{one.parents[2].name}:{one.parent.name}": "ACTIVE" in read_text(str(one)) for one in states}


def default_address(known):
    """Return the address from which the host reaches others, or the first one where no route leads out."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket sends nothing on connect
            return probe.getsockname()[0]
        except OSError:
            return known[0] if known else None


def _socket_address(text):
    """Decode the kernel's hexadecimal ADDRESS:PORT, whose 32-bit words are in the machine's byte order."""
    digits, port = text.split(":")
    raw = bytes.fromhex(digits)
    words = [struct.pack("=I", word) for word in struct.unpack(f">{len(raw) // 4}I", raw)]
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words)), int(port, 16)


def _listening_sockets():
    """Return {inode: (address, port)} of the listening TCP sockets."""
    found = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read_text(path).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == TCP_LISTEN:
                found[fields[9]] = _socket_address(fields[1])
    return found


def _names(folder):
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _link(path):
    """Return where a link points; a pathlib object for each of 100,000 open files would be slow."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _socket_owners(inodes):
    """Return {inode: pid} by walking /proc/*/fd, ended as soon as all are found."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners = {}
    for pid in filter(str.isdigit, _names("/proc")):
        if len(owners) == len(wanted):
            break
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as files:  # it may have ended meanwhile
            for inode in filter(None, (wanted.get(_link(entry.path)) for entry in files)):
                owners.setdefault(inode, int(pid))
    return owners


def listeners():
    """Return the listening TCP ports with the process behind each, where one is seen."""
    sockets = _listening_sockets()
    owners = _socket_owners(sockets)
    found = []
    for inode, (address, port) in sockets.items():
        pid = owners.get(inode)
        process = read_text(f"/proc/{pid}/comm").strip() if pid else None
        found.append({"address": address, "port": port, "pid": pid, "process": process, "container": None})
    return sorted(found, key=lambda one: (one["port"], one["address"]))
