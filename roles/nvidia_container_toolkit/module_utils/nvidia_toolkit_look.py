# SPDX-License-Identifier: Apache-2.0
"""What a host has of GPUs, of the toolkit, and of CDI specifications. Nothing is changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Dict

from ansible.module_utils import onprem_llm_cdi as cdi
from ansible.module_utils.onprem_llm_command import dotted, numbers, run
from ansible.module_utils.onprem_llm_limited import call
from ansible.module_utils.onprem_llm_nvidia_chips import OLDER, TAKEN, generation

ROOT = Path("/")  # another one serves the tests
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NVIDIA, DISPLAY = "0x10de", "0x03"  # of PCI: the vendor, display controllers
UUID = re.compile(r"^GPU \d+: .*\(UUID: (GPU-[0-9a-fA-F-]+)\)", re.MULTILINE)
TOOLS = ("nvidia-container-runtime", "nvidia-container-runtime-hook", "nvidia-cdi-hook")

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Facts = Dict[str, Any]


def facts() -> Facts:
    """Return what the plan is made from."""
    release = _os_release()
    return {
        "os": release.get("ID", ""),
        "machine": run(["uname", "-m"])[1],
        "gpus": gpus(),
        "toolkit": toolkit(),
        "lacks": [name for name in TOOLS if shutil.which(name, path=SYSTEM_PATH) is None],
    }


def gpus() -> int:
    """Return how many NVIDIA GPUs engines may get: not lent ones, nor those that no driver of theirs knows."""
    count = 0
    for device in (ROOT / "sys/bus/pci/devices").glob("*"):
        lent = (device / "driver").exists() and (device / "driver").resolve().name in TAKEN
        nvidia = _line(device / "vendor") == NVIDIA and _line(device / "class").startswith(DISPLAY)
        count += nvidia and not lent and generation(int(_line(device / "device"), 16)) != OLDER
    return count


def toolkit() -> str | None:
    """Return the version of nvidia-ctk, None where the host has none that runs."""
    code, text = run(["nvidia-ctk", "--version"])
    return dotted(numbers(text)) if code == 0 and numbers(text) else None


def specification() -> Facts:
    """Return what CDI offers now: the files, the GPUs' names by UUID, what they name that is gone; the cards' UUIDs.

    `cards` is None where nvidia-smi does not say (`error` has its last line); partitions have names of their own.
    """
    folders = [ROOT / one.lstrip("/") for one in cdi.FOLDERS]
    found = cdi.specifications(folders)
    named = {name for _, text in found for name in re.findall(r"GPU-[0-9a-fA-F]{8}-[0-9a-fA-F-]+", text)}
    cards, error, mig = _cards()
    return {
        "files": ["/" + str(path.relative_to(ROOT)) for path, _ in found],
        "named": sorted(named),
        "missing": cdi.missing(folders, ROOT),
        "cards": cards,
        "error": error,
        "mig": mig,
    }


def _cards() -> tuple[list[str] | None, str, bool]:
    """Ask nvidia-smi, which hangs where the driver does."""
    try:
        code, text = call(["nvidia-smi", "-L"], 60)
    except OSError as error:
        return None, str(error), False
    if code != 0:
        return None, (text.strip().splitlines() or ["no answer within 60 s"])[-1], False
    return sorted(UUID.findall(text)), "", "  MIG " in text


def _os_release() -> dict[str, str]:
    pairs = (line.partition("=") for line in _text(ROOT / "etc/os-release").splitlines())
    return {key.strip(): value.strip().strip("\"'") for key, mark, value in pairs if mark}


def _line(path: Path) -> str:
    return _text(path).partition("\n")[0].strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
