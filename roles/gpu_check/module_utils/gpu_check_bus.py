# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's GPUs as the PCI bus shows them, driver or not. Reads /sys alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict

NVIDIA = "0x10de"
# VGA controllers and 3D controllers; 0x0302 is what cards without a display output are.
DISPLAY_CLASSES = ("0x0300", "0x0302")
# A host that hands a card to a virtual machine has given it away.
GIVEN_AWAY = ("vfio-pci", "nvgrace-gpu-vfio-pci", "pci-stub")
Card = Dict[str, Any]


def cards(root: Path = Path("/")) -> list[Card]:
    """Return address, device id, class, driver, lanes of each card of ours, and whether it answers."""
    found = [_card(path) for path in sorted((root / "sys/bus/pci/devices").glob("*")) if _is_gpu(path)]
    return [card for card in found if card["driver"] not in GIVEN_AWAY]


def text_of(path: Path) -> str:
    """Return a small file's text without blanks around it, empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def bus_id(text: str | None) -> str | None:
    """Return 0000:18:00.0 for nvidia-smi's 00000000:18:00.0; None for what is no bus id."""
    found = re.match(r"^(?:([0-9a-f]+):)?([0-9a-f]{2}):([0-9a-f]{2})(\.[0-9a-f])?$", (text or "").strip().lower())
    if found is None:
        return None
    domain, bus, device, function = found.groups()
    return "{:04x}:{}:{}{}".format(int(domain or "0", 16), bus, device, function or ".0")


def _is_gpu(device: Path) -> bool:
    kind = text_of(device / "class")[:6]
    # A virtual function belongs to the card behind `physfn`, and is a virtual machine's.
    return text_of(device / "vendor") == NVIDIA and kind in DISPLAY_CLASSES and not (device / "physfn").exists()


def _card(device: Path) -> Card:
    driver = device / "driver"
    return {
        "address": device.name.lower(),
        "device": "10de:" + text_of(device / "device")[2:].lower(),
        "class": text_of(device / "class")[2:6],
        "driver": driver.resolve().name if driver.exists() else None,
        "answers": _answers(device / "config"),
        "width": _lanes(device / "current_link_width"),
        "max_width": _lanes(device / "max_link_width"),
    }


def _answers(config: Path) -> bool:
    """Say whether the card is still on the bus: the configuration space of one that has fallen off reads as ones."""
    try:
        with config.open("rb") as stream:
            return stream.read(4) != b"\xff\xff\xff\xff"
    except OSError:
        return True  # not readable is not gone


def _lanes(path: Path) -> int | None:
    text = text_of(path)
    # 0 and 63 (and 255) are what the kernel says where it does not know.
    return int(text) if text.isdigit() and 0 < int(text) <= 32 else None
