# SPDX-License-Identifier: Apache-2.0
"""What a host has, before any driver: GPUs on the PCI bus, kernels and their headers, modules, Secure Boot."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any, Dict

from ansible.module_utils.onprem_llm_command import run

ROOT = Path("/")  # another one serves the tests
NVIDIA = "0x10de"
DISPLAY, NVSWITCH = "0x03", "0x0680"  # PCI classes: display controllers; bridges of another kind
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Debian builds its own under these names, and has the name nvidia lead to one of them.
MODULE_FILE = re.compile(r"^nvidia(-current|-current-open|-tesla-[0-9]+(-open)?)?\.ko(\.(xz|zst|gz))?$")
LOADED = re.compile(r"^NVRM version: NVIDIA UNIX (Open )?.*?\s(\d{3,}\.\d+(?:\.\d+)?)\s", re.MULTILINE)
# Processes' names, of which the kernel keeps 15 letters.
WATCHERS = ("nvidia-persiste", "nv-fabricmanage", "nv-hostengine", "nvidia-smi")
FOLDERS = ("updates", "extra", "weak-updates", "kernel/drivers", "kernel")

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Facts = Dict[str, Any]


def facts() -> Facts:
    """Return what the plan is made from; nothing here depends on packages, and nothing is changed."""
    release = _os_release()
    kernels = installed_kernels()
    running = run(["uname", "-r"])[1]
    modules = {name: built(name) for name in sorted({*kernels, running})}
    return {
        "os": release.get("ID", ""),
        "version": release.get("VERSION_ID", ""),
        "codename": release.get("VERSION_CODENAME", ""),
        "machine": run(["uname", "-m"])[1],
        "gpus": gpus(),
        "switches": _count_switches(),
        "running": running,
        "newest": newest(kernels or [running]),
        "headers": [name for name in sorted({*kernels, running}) if _has_headers(name)],
        "built": {name: found for name, found in modules.items() if found},
        "loaded": loaded(read("proc/driver/nvidia/version")),
        "nouveau": (ROOT / "sys/module/nouveau").is_dir(),
        "secure_boot": secure_boot(),
    }


def gpus() -> list[dict[str, Any]]:
    """Return NVIDIA's display controllers: address on the bus, device id, the kernel driver that has it (or None)."""
    found = []
    for device in sorted((ROOT / "sys/bus/pci/devices").glob("*")):
        if _line(device / "vendor") == NVIDIA and _line(device / "class").startswith(DISPLAY):
            driver = device / "driver"
            name = driver.resolve().name if driver.exists() else None
            found.append({"address": device.name, "device": int(_line(device / "device"), 16), "driver": name})
    return found


def _count_switches() -> int:
    devices = (ROOT / "sys/bus/pci/devices").glob("*")
    return sum(_line(one / "vendor") == NVIDIA and _line(one / "class").startswith(NVSWITCH) for one in devices)


def installed_kernels() -> list[str]:
    """Return every kernel that the host could boot: its image or its modules are there."""
    names = {path.name[len("vmlinuz-") :] for path in (ROOT / "boot").glob("vmlinuz-*")}
    names |= {path.parent.name for path in (ROOT / "lib/modules").glob("*/modules.builtin")}
    return sorted(name for name in names if "rescue" not in name and not name.endswith(".old"))


def newest(kernels: list[str]) -> str:
    """Return the kernel that the next boot takes, as boot loaders choose: the highest version."""
    return max(kernels, key=version_key)


def version_key(text: str) -> list[tuple[int, int, str]]:
    """Return what sorts 6.12.9 before 6.12.48."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|[a-z]+", text)]


def _has_headers(kernel: str) -> bool:
    """Say whether modules can be built for a kernel: its build folder is there, not a link to nowhere."""
    return (ROOT / "lib/modules" / kernel / "build" / "Makefile").exists()


def built(kernel: str) -> dict[str, Any]:
    """Return version, kind and path of NVIDIA's module for a kernel, or nothing. One that cannot be read is none."""
    base = ROOT / "lib/modules" / kernel
    for folder in FOLDERS:
        for path in sorted((base / folder).rglob("nvidia*.ko*")) if (base / folder).is_dir() else ():
            if not MODULE_FILE.match(path.name):
                continue
            version = run(["modinfo", "--field", "version", str(path)])[1]
            if re.match(r"^\d{3,}\.\d+", version):
                open_one = "MIT" in run(["modinfo", "--field", "license", str(path)])[1]
                return {"version": version, "open": open_one, "path": "/" + str(path.relative_to(ROOT))}
    return {}


def loaded(text: str) -> dict[str, Any] | None:
    """Read /proc/driver/nvidia/version; None where no driver runs."""
    match = LOADED.search(text)
    return {"version": match.group(2), "open": bool(match.group(1))} if match else None


def users() -> list[str]:
    """Return the programs that have a GPU open, each once, but for those that only watch over them."""
    found = set()
    for process in (ROOT / "proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            open_ones = [os.readlink(one) for one in (process / "fd").iterdir()]
            if any(one.startswith("/dev/nvidia") for one in open_ones):
                found.add(_line(process / "comm"))
    return sorted(name for name in found - set(WATCHERS) if name)


def secure_boot() -> bool:
    """Say whether the firmware boots signed kernels alone. The variable: four bytes of attributes, one of value."""
    try:
        return (ROOT / SECURE_BOOT).read_bytes()[4:5] == b"\x01"
    except OSError:
        return False


def _os_release() -> dict[str, str]:
    pairs = (line.partition("=") for line in read("etc/os-release").splitlines())
    return {key.strip(): value.strip().strip("\"'") for key, mark, value in pairs if mark}


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""


def read(name: str) -> str:
    """Return a file's text, empty where it cannot be read."""
    try:
        return (ROOT / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
