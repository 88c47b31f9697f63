# SPDX-License-Identifier: Apache-2.0
"""What a host says of the interface that leads to another one, and of its clock."""

import re
import shutil
import subprocess
from pathlib import Path

NET = Path("/sys/class/net")
SERVICES = ("chrony", "chronyd", "systemd-timesyncd", "ntp", "ntpd", "ntpsec", "openntpd")


def run(*command, timeout=10):
    """Return what a command printed, nothing where there is none or it failed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def number(path):
    """Return the whole number in a file, None where there is none or it is not known (-1)."""
    try:
        value = int(path.read_text())
    except (OSError, ValueError):
        return None
    return value if value > 0 else None


def device_to(address, net=NET):
    """Return the interface by which packets to an address leave: name, mtu (bytes), speed (Mbit/s, or None)."""
    found = re.search(r"\bdev (\S+)", run("ip", "-o", "route", "get", address))
    if not found:
        return {"name": None, "mtu": None, "speed": None}
    place = net / found.group(1)
    speed = number(place / "speed") if is_physical(place) else None
    return {"name": found.group(1), "mtu": number(place / "mtu"), "speed": speed}


def is_physical(place):
    """Tell whether it is a card, or a bond or VLAN of cards: veth and bridges tell a speed that nothing has."""
    lower = list(place.glob("lower_*"))
    return (place / "device").exists() or (bool(lower) and all(is_physical(one.resolve()) for one in lower))


def clock():
    """Return {"synchronized": whether something keeps the clock right or None, "service": what does, or None}."""
    said = run("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
    active = [name for name in SERVICES if run("systemctl", "is-active", f"{name}.service").strip() == "active"]
    synchronized = {"yes": True, "no": False}.get(said)
    return {"synchronized": synchronized, "service": active[0] if active else None}


def iperf3():
    """Return the path of iperf3, None where it is not installed."""
    return shutil.which("iperf3", path="/usr/local/bin:/usr/bin:/bin")
