"""The operating system, processor, memory, rights, and what else guards the host."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from ansible.module_utils.host_preflight_findings import GIB, Finding, finding, judged, output_of, read

SUPPORTED = {
    "debian": ("12", "13"),
    "ubuntu": ("22.04", "24.04"),
    "rhel": ("8", "9"),
    "rocky": ("8", "9"),
    "almalinux": ("8", "9"),
    "centos": ("8", "9"),
    "ol": ("8", "9"),
}
SUPPORTED_TEXT = "Debian 12 or 13, Ubuntu 22.04 or 24.04, or RHEL, Rocky, AlmaLinux, CentOS Stream, Oracle Linux 8 or 9"
RHEL_FAMILY = ("rhel", "rocky", "almalinux", "centos", "ol")
ARCHITECTURES = ("x86_64", "aarch64")


def machine_findings(min_memory_gib: float) -> list[Finding]:
    """Return what is found about the machine itself."""
    return [
        _os(os_release()),
        _architecture(platform.machine()),
        finding("cpus", "ok", str(os.cpu_count() or 1), "any number"),
        _memory(read("/proc/meminfo"), min_memory_gib),
        _rights(os.geteuid()),
        _python(sys.version_info[:3]),
        _systemd(),
        _cgroup(),
        _selinux(),
        _firewall(),
    ]


def system() -> dict[str, str]:
    """Return the names that say which packages fit: ID and VERSION_ID of /etc/os-release, and the processor's."""
    release = os_release()
    return {
        "id": release.get("ID", ""),
        "version_id": release.get("VERSION_ID", ""),
        "machine": platform.machine(),
    }


def os_release(text: str = "") -> dict[str, str]:
    """Return /etc/os-release as a mapping; quotes around values are taken off."""
    entries: dict[str, str] = {}
    for line in (text or read("/etc/os-release")).splitlines():
        key, mark, value = line.partition("=")
        if mark and not key.startswith("#"):
            entries[key.strip()] = value.strip().strip("\"'")
    return entries


def _os(release: dict[str, str]) -> Finding:
    name, version = release.get("ID", ""), release.get("VERSION_ID", "")
    if name in RHEL_FAMILY:
        version = version.split(".")[0]
    return judged(
        "os",
        version in SUPPORTED.get(name, ()),
        release.get("PRETTY_NAME", "no /etc/os-release"),
        SUPPORTED_TEXT,
        "Install one of these on the host, or take it out of the inventory.",
    )


def _architecture(machine: str) -> Finding:
    remedy = "Images of vLLM exist for these alone: take the host out of the inventory."
    return judged("architecture", machine in ARCHITECTURES, machine, " or ".join(ARCHITECTURES), remedy)


def _memory(meminfo: str, min_gib: float) -> Finding:
    total = 0
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    return judged(
        "memory",
        total >= min_gib * GIB,
        f"{total / GIB:.1f} GiB",
        f"at least {min_gib:g} GiB",
        "Give the host more memory, or lower host_preflight_min_memory_gib in group_vars.",
    )


def _rights(user_id: int) -> Finding:
    remedy = (
        "Let the SSH user become root with sudo (--ask-become-pass where it wants a password), or ansible_user=root."
    )
    return judged("sudo", user_id == 0, "root" if user_id == 0 else f"user id {user_id}", "root", remedy)


def _python(version: tuple[int, ...]) -> Finding:
    remedy = "Install a newer python3 and name it in the inventory: ansible_python_interpreter=/usr/bin/python3.12"
    return judged("python", version >= (3, 8), ".".join(str(part) for part in version), "3.8 or newer", remedy)


def _systemd() -> Finding:
    running = Path("/run/systemd/system").is_dir()
    found = "running" if running else f"the first process is {read('/proc/1/comm').strip() or 'unknown'}"
    return judged("systemd", running, found, "running", "Boot the host with systemd: it starts docker and keeps it up.")


def _cgroup() -> Finding:
    second = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    remedy = "Newer docker engines drop version 1: boot with systemd.unified_cgroup_hierarchy=1 when you next reboot."
    return judged("cgroup", second, "version 2" if second else "version 1", "version 2", remedy, bad="warning")


def _selinux() -> Finding:
    state = {"1": "enforcing", "0": "permissive"}.get(read("/sys/fs/selinux/enforce").strip(), "off")
    return finding("selinux", "ok", state, "any state")


def _firewall() -> Finding:
    active = [name for name in ("ufw", "firewalld") if _is_active(name)]
    remedy = "A port that docker publishes is open in spite of it: choose with `listen` in model.yaml who reaches it."
    return judged(
        "firewall", not active, " and ".join(active) or "neither ufw nor firewalld", "known", remedy, "warning"
    )


def _is_active(name: str) -> bool:
    """Say whether a firewall filters; ufw's unit is active even when ufw is switched off."""
    if name == "ufw":
        return "Status: active" in (output_of(["ufw", "status"]) or "")
    return output_of(["systemctl", "is-active", name]) == "active"
