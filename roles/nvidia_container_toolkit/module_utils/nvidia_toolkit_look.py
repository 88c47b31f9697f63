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
SPLIT = re.compile(r"^GPU \d+: .*\(UUID: (GPU-[0-9a-fA-F-]+)\)\n +MIG ", re.MULTILINE)
TOOLS = ("nvidia-container-runtime", "nvidia-container-runtime-hook")
CDI_HOOK, HOOK_SINCE = "nvidia-cdi-hook", (1, 16)  # before, nvidia-ctk is the hook itself (CHANGELOG, v1.16.0-rc.1)

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Facts = Dict[str, Any]


def facts() -> Facts:
    """Return what the plan is made from."""
    release, version = _os_release(), toolkit()
    tools = [*TOOLS, CDI_HOOK] if version is None or numbers(version) >= HOOK_SINCE else TOOLS
    return {
        "os": release.get("ID", ""),
        "machine": run(["uname", "-m"])[1],
        "gpus": gpus(),
        "toolkit": version,
        "lacks": [name for name in tools if shutil.which(name, path=SYSTEM_PATH) is None],
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

    `cards` is None where nvidia-smi does not say (`error` has its last line). Those with MIG on are in `mig` instead:
    of them containers get partitions alone, which have names of their own.
    """
    folders = [ROOT / one.lstrip("/") for one in cdi.FOLDERS]
    found = cdi.specifications(folders)
    named = {name for _, text in found for name in re.findall(r"(?<!MIG-)GPU-[0-9a-fA-F]{8}-[0-9a-fA-F-]+", text)}
    return {
        "files": ["/" + str(path.relative_to(ROOT)) for path, _ in found],
        "named": sorted(named),
        "missing": cdi.missing(folders, ROOT),
        **_cards(),
    }


def _cards() -> Facts:
    """Ask nvidia-smi, which hangs where the driver does."""
    none: Facts = {"cards": None, "error": "", "mig": [], "partitions": False}
    try:
        code, text = call(["nvidia-smi", "-L"], 60)
    except OSError as error:
        return {**none, "error": str(error)}
    if code != 0:
        return {**none, "error": (text.strip().splitlines() or ["no answer within 60 s"])[-1]}
    code, modes = call(["nvidia-smi", "--query-gpu=uuid,mig.mode.current", "--format=csv,noheader"], 60)
    # A driver that does not know the question lists partitions, where there are any.
    pairs = [line.partition(",") for line in modes.splitlines()] if code == 0 else []
    mig = {card.strip() for card, _, mode in pairs if mode.strip() == "Enabled"} if pairs else set(SPLIT.findall(text))
    found = set(UUID.findall(text))
    return {**none, "cards": sorted(found - mig), "mig": sorted(found & mig), "partitions": "  MIG " in text}


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
