"""What a host is, for facts.json, which travels to a machine that cannot reach it.

onprem_llm's facts/collect.sh says the same things without Ansible: change both or none.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import threading
from pathlib import Path

from ansible.module_utils import onprem_llm_probe_gpus as gpus_part
from ansible.module_utils import onprem_llm_probe_machine as machine_part

ROOT = Path("/")  # another one serves the tests
TIME_LIMIT = 5.0  # seconds a file system; one whose server is gone never answers
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.+:~_-]*$")
DRIVER = re.compile(r"^[0-9]{3}(\.[0-9]+){1,2}$")
ESCAPED = re.compile(r"\\([0-7]{3})")
NVIDIA = "0x10de"
DISPLAY, SWITCH = "0x03", "0x0680"  # display controllers; bridges of another kind
# Images that never change, mounted from a file or a disc.
READ_ONLY = {"squashfs", "iso9660", "udf"}
# File systems whose device is no path.
NAMED = {
    "nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "beegfs", "zfs", "9p", "virtiofs", "fuse.glusterfs",
    "fuse.ceph",
}  # fmt: skip


def _kernels():
    """Return every kernel whose image or modules are whole."""
    names = {path.name[len("vmlinuz-") :] for path in (ROOT / "boot").glob("vmlinuz-*")}
    names |= {path.parent.name for path in (ROOT / "lib/modules").glob("*/modules.builtin")}
    return sorted(name for name in names if NAME.match(name) and "rescue" not in name and not name.endswith(".old"))


def _cpu_model():
    for line in machine_part.read_text(ROOT / "proc/cpuinfo").splitlines():
        key, separator, value = line.partition(":")
        if separator and key.strip() == "model name":
            return value.strip() or "unknown"
    return "unknown"


def _memory():
    for line in machine_part.read_text(ROOT / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return 0


def _bus():
    """Return NVIDIA's GPUs as the PCI bus has them, for a host without their driver."""
    found = []
    for device in sorted((ROOT / "sys/bus/pci/devices").glob("*")):
        vendor, kind, number = (machine_part.read_text(device / name).strip() for name in ("vendor", "class", "device"))
        if vendor == NVIDIA and kind.startswith(DISPLAY):
            pci_id = f"10de:{number[2:]}"
            found.append({"name": f"NVIDIA {pci_id}", "memory_bytes": None, "pci_id": pci_id})
    return found


def _count_switches():
    """Return how many NVSwitches join the GPUs."""
    devices = (ROOT / "sys/bus/pci/devices").glob("*")
    said = [[machine_part.read_text(one / name).strip() for name in ("vendor", "class")] for one in devices]
    return sum(vendor == NVIDIA and kind.startswith(SWITCH) for vendor, kind in said)


def _gpus():
    """Return the GPUs that the driver knows, else those of the bus."""
    with contextlib.suppress(gpus_part.GpuToolError, OSError):
        known = gpus_part.described()
        if known:
            return known
    return _bus()


def _driver():
    """Return the driver that is loaded, as its kernel module says: in the first line, among other words."""
    words = machine_part.read_text(ROOT / "proc/driver/nvidia/version").partition("\n")[0].split()
    return next((word for word in words if DRIVER.match(word)), None)


def _unescaped(text):
    """Return a path out of /proc/mounts, where blanks are written as \\040."""
    return ESCAPED.sub(lambda match: chr(int(match.group(1), 8)), text)


def _room(path):
    """Return (all, free) bytes of a file system; None where it does not say in time."""
    answer = []

    def ask():
        with contextlib.suppress(OSError):
            if Path(path).is_dir():
                stat = os.statvfs(path)
                answer.append((stat.f_frsize * stat.f_blocks, stat.f_frsize * stat.f_bavail))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    return answer[0] if answer else None


def _shown(path):
    """Return a path as text, whatever bytes it has."""
    return os.fsencode(path).decode("utf-8", "replace")


def _disks():
    found, seen = [], set()
    with contextlib.suppress(OSError):
        for line in (ROOT / "proc/mounts").read_bytes().splitlines():
            device, mount, filesystem = os.fsdecode(line).split(" ")[:3]
            kept = device.startswith("/") or filesystem in NAMED or mount == "/"
            if not kept or filesystem in READ_ONLY or seen & {device, mount}:
                continue
            path = _unescaped(mount)
            room = _room(path)
            if room is None:
                continue
            seen |= {device, mount}
            size, free = room
            found.append({"mount": _shown(path), "filesystem": filesystem, "size_bytes": size, "free_bytes": free})
    return found


def facts():
    """Return the `facts` part of the probe: one host of facts.json, without how it was collected."""
    text = machine_part.read_text(ROOT / "etc/os-release") or machine_part.read_text(ROOT / "usr/lib/os-release")
    release = machine_part.key_values(text)
    return {
        "os": {
            "id": release.get("ID") or "unknown",
            "version_id": release.get("VERSION_ID", ""),
            "codename": release.get("VERSION_CODENAME", ""),
        },
        "architecture": platform.machine(),
        "kernels": {"running": platform.release(), "installed": _kernels()},
        "cpu": {"model": _cpu_model(), "cores": len(os.sched_getaffinity(0))},
        "memory_bytes": _memory(),
        "gpus": _gpus(),
        "nvswitches": _count_switches(),
        "driver": _driver(),
        "disks": _disks(),
        "python": platform.python_version(),
    }
