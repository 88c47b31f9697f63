# SPDX-License-Identifier: Apache-2.0
"""Judging the driver: is it there, does it run, does it show every card; if not, why, and what to do. Pure."""

from __future__ import annotations

import re

from ansible.module_utils.gpu_check_findings import ERROR, OK, WARNING, Facts, Finding, finding
from ansible.module_utils.gpu_check_log import fallen, not_started

NEEDS_OPEN = "requires use of the NVIDIA open kernel modules"
NEEDS_CLOSED = "is not supported by open nvidia.ko"
LEGACY = re.compile(r"supported through the NVIDIA (\S+) Legacy drivers")
# The kernel's words (kernel/module/signing.c, security/lockdown); modprobe's own are in the journal, not in its log.
REJECTED = re.compile(r"Key was rejected|unsigned module loading is restricted|Loading of .*module.* is rejected")
MISMATCH = "version mismatch"
ELSEWHERE = ("is held by", "has no driver")
SECURE_BOOT_REMEDY = (
    "Secure Boot takes signed modules only. Enrol the key that DKMS signs with: mokutil --import /var/lib/dkms/mok.pub "
    "(Ubuntu: /var/lib/shim-signed/mok/MOK.der), choose a password, reboot, and at the console: Enroll MOK, Continue, "
    "that password. Or switch Secure Boot off in the firmware."
)
OFF_AND_ON = (
    "Power the host off (a reboot may not be enough), look at the card's seat, its power cables and its cooling, and "
    "power it on. If it comes back: another slot, then another card."
)


def driver_findings(facts: Facts) -> list[Finding]:
    """Return what is to be said of the driver and of cards that it does not show."""
    bus, driver, gpus = facts["bus"], facts["driver"], facts["gpus"]
    if gpus:
        return [_fine(driver), *_unseen(facts)]
    if not driver["tool"] and not bus:
        text = "no NVIDIA GPU: this host can serve the gateway, the UI and models on its CPU"
        return [finding("gpus", OK, text, "any number")]
    if not driver["tool"] and driver["state"]["loaded"] is None and not driver["state"]["dkms"]:
        text = f"{len(bus)} NVIDIA GPU(s) on the PCI bus, no nvidia-smi"
        remedy = "Install NVIDIA's driver (580 or newer for current vLLM images), reboot, and look again."
        return [finding("driver", WARNING, text, "NVIDIA's driver", remedy)]
    found, remedy = why(facts)
    return [
        finding("driver", ERROR if bus else WARNING, found, "an answer of nvidia-smi", remedy),
        *_off_the_bus(facts),
    ]


def why(facts: Facts) -> tuple[str, str]:
    """Return in one line why there is a driver and no GPU to be seen, and what to do. The surest reason is said."""
    state, log = facts["driver"]["state"], "\n".join(facts["log"])
    said = facts["driver"]["error"] or "nvidia-smi is missing"
    legacy = LEGACY.search(log)
    if MISMATCH in said:
        return _mismatch(said, state)
    if NEEDS_CLOSED in log:
        text = "the open kernel modules of the driver do not support this GPU (they want Turing or newer)"
        return text, "Install the same branch with the proprietary modules (not -open; 580 is the last for such GPUs)."
    if NEEDS_OPEN in log:
        text = "this GPU wants the open kernel modules, and the driver's are proprietary"
        return text, "Install the -open packages of the same driver version, and reboot."
    if legacy:
        text = f"this driver no longer supports the GPU; branch {legacy.group(1)} does"
        return (
            text,
            f"Install NVIDIA's legacy branch {legacy.group(1)}, or another card: current vLLM images want a newer one.",
        )
    # Without a card on the bus the words of nvidia-smi are all there is to go by (Jetson, WSL, a rehearsal host).
    if state["loaded"] or not facts["bus"]:
        return _loaded(said, facts)
    return _not_loaded(said, facts, log)


def _mismatch(said: str, state: Facts) -> tuple[str, str]:
    library = re.search(r"NVML library version: (\S+)", said)
    loaded = state["loaded"] or "another version"
    newer = library.group(1) if library else "of another version"
    text = f"the driver was updated while it ran: loaded is {loaded}, its libraries are {newer}"
    remedy = (
        "Drain the host (onprem-llm host drain HOST) and reboot it. Hold the driver's packages, so that it stays one."
    )
    return text, remedy


def _loaded(said: str, facts: Facts) -> tuple[str, str]:
    """Return why a driver that is loaded shows nothing."""
    if not facts["driver"]["tool"]:
        text = "the driver is loaded, and nvidia-smi is not installed"
        return (
            text,
            "Install its tools (Debian: nvidia-smi, Ubuntu: nvidia-utils-NNN-server, RHEL: nvidia-driver-cuda).",
        )
    if "did not answer" in said:
        text = f"{said}: the driver hangs"
        return text, "Look at `journalctl -k | grep -i nvrm`, then reboot the host; a lost GPU wants it powered off."
    if facts["xids"]:
        text = f"{said}; the kernel's log has Xid {facts['xids'][0]['code']}, see there"
        return text, OFF_AND_ON
    if "No devices were found" in said and not facts["bus"]:
        return (
            f"{said}, and there is none on the PCI bus",
            "Look at the card's seat and power, or uninstall the driver.",
        )
    return f"nvidia-smi fails: {said}", "Look at `journalctl -k | grep -i nvrm`. A lost GPU wants the host powered off."


def _not_loaded(said: str, facts: Facts, log: str) -> tuple[str, str]:
    """Return why the module is not in the kernel."""
    state = facts["driver"]["state"]
    kernel, bound = state["kernel"], {card["driver"] for card in facts["bus"]}
    if REJECTED.search(log):
        return "Secure Boot rejected the driver's module: the kernel does not trust its key", SECURE_BOOT_REMEDY
    if state["others"] or "nouveau" in bound:
        name = (state["others"] or ["nouveau"])[0]
        text = f"{name} holds the GPU, so that NVIDIA's driver cannot be loaded"
        remedy = (
            f"Put `blacklist {name}` and `options {name} modeset=0` into /etc/modprobe.d/{name}.conf, "
            "update-initramfs -u (dracut --force on RHEL), and reboot."
        )
        return text, remedy
    if not state["built"]:
        return _not_built(kernel, state)
    if state["secure_boot"]:
        return (
            "the driver is built and not loaded, with Secure Boot on: it is most likely not signed",
            SECURE_BOOT_REMEDY,
        )
    text = f"the driver is built for kernel {kernel} and not loaded ({said[:120]})"
    return text, "Run `modprobe nvidia` on the host: it says why, or `journalctl -k` does."


def _not_built(kernel: str, state: Facts) -> tuple[str, str]:
    packages = f"linux-headers-{kernel} (RHEL: kernel-devel-{kernel})"
    failed = next((tree for tree in state["dkms"] if tree["error"]), None)
    if not state["headers"]:
        text = f"the driver is not built for kernel {kernel}: its headers are not installed"
        return text, f"Install {packages}, then `dkms autoinstall -k {kernel}` and `modprobe nvidia`."
    if failed:
        text = f"DKMS could not build {failed['name']} {failed['version']} for kernel {kernel}: {failed['error']}"
        log = f"/var/lib/dkms/{failed['name']}/{failed['version']}/build/make.log"
        return text, f"See {log} on the host; a kernel that is newer than the driver wants a newer driver."
    text = f"the driver has no module for kernel {kernel}"
    return (
        text,
        f"`dkms autoinstall -k {kernel}`, or install the driver's modules for this kernel; then `modprobe nvidia`.",
    )


def _fine(driver: Facts) -> Finding:
    kind = {True: ", open kernel modules", False: ", proprietary kernel modules"}.get(driver["state"]["open"], "")
    text = f"driver {driver['version'] or 'unknown'}, CUDA {driver['cuda'] or 'unknown'}{kind}"
    return finding("driver", OK, text, "any; images want their own minimum")


def _unseen(facts: Facts) -> list[Finding]:
    """Return cards that are on the bus, or were lost, and that the driver does not show: each with the reason."""
    shown = {gpu["bus_id"] for gpu in facts["gpus"]}
    lost = [card["address"] for card in facts["bus"] if card["address"] not in shown]
    lost += [address for address in facts["driver"]["lost"] if address not in lost and address not in shown]
    if not lost:
        return []
    reasons = {address: _reason(address, facts) for address in lost}
    said = "; ".join(f"{address} {reason}" for address, reason in reasons.items())
    text = f"{len(lost)} of {len(shown | set(lost))} GPUs not shown by the driver: {said}"
    if any("fallen" in reason or "lost" in reason for reason in reasons.values()):
        remedy = OFF_AND_ON
    elif all(reason.startswith(ELSEWHERE) for reason in reasons.values()):
        remedy = "Bind it to NVIDIA's driver (blacklist the other, reboot); a card for the screen alone may stay so."
    else:
        remedy = "Look at `journalctl -k | grep -i nvrm` on the host; after a driver update, reboot."
    screens = {card["address"] for card in facts["bus"] if card["class"] == "0300"}
    # An old card that a screen hangs on is often left to another driver on purpose.
    meant = all(address in screens and reason.startswith(ELSEWHERE) for address, reason in reasons.items())
    return [finding("gpus_seen", WARNING if meant else ERROR, text, "every GPU of the PCI bus", remedy)]


def _off_the_bus(facts: Facts) -> list[Finding]:
    gone = [card["address"] for card in facts["bus"] if "fallen" in _reason(card["address"], facts)]
    text = f"{', '.join(gone)}: fallen off the bus"
    return [finding("gpus_seen", ERROR, text, "every GPU of the PCI bus", OFF_AND_ON)] if gone else []


def _reason(address: str, facts: Facts) -> str:
    card = next((one for one in facts["bus"] if one["address"] == address), None)
    if (card and not card["answers"]) or address in fallen(facts["log"]):
        return "has fallen off the bus"
    if address in facts["driver"]["lost"]:
        return "is lost (nvidia-smi: unable to determine the device handle)"
    if address in not_started(facts["log"]):
        return "could not be started by the driver (RmInitAdapter failed)"
    if card and card["driver"] != "nvidia":
        return f"is held by {card['driver']}" if card["driver"] else "has no driver"
    return "is not shown, and the kernel's log does not say why"
