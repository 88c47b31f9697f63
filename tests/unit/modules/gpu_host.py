"""A made-up host for gpu_check: what nvidia-smi answers, what /sys and /proc show, what the kernel's log says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

CASES = Path(__file__).parent / "gpu_cases"
KERNEL = "6.12.48+deb13-amd64"
NOTHING_LOADED: Mapping[str, Any] = {
    "kernel": KERNEL, "loaded": None, "open": None, "built": True, "headers": True, "secure_boot": False, "others": [],
    "dkms": [{"name": "nvidia", "version": "580.95.05", "built": True, "error": None}],
}  # fmt: skip
LOADED = {**NOTHING_LOADED, "loaded": "580.95.05", "open": True}
COULD_NOT = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)


def card(address: str, **changes: Any) -> dict[str, Any]:
    """Return a card as the PCI bus shows it."""
    known = {"address": address, "device": "10de:2330", "class": "0302", "driver": "nvidia", "answers": True}
    return {**known, "width": 16, "max_width": 16, **changes}


def case(cards: ModuleType, name: str, changes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what is parsed of a recorded case, with some of its text replaced."""
    text = (CASES / f"{name}.xml").read_text()
    for old, new in (changes or {}).items():
        assert old in text, f"{name}.xml has no {old}"
        text = text.replace(old, new)
    found: dict[str, Any] = cards.parsed(text)
    return found


def facts(
    seen: Mapping[str, Any] | None = None,
    *,
    error: str | None = None,
    bus: Sequence[Mapping[str, Any]] | None = None,
    state: Mapping[str, Any] = LOADED,
    **changes: Any,
) -> dict[str, Any]:
    """Return the facts of a host: GPUs as parsed, on a bus that shows the same ones unless it is told otherwise."""
    seen = seen or {"driver": None, "cuda": None, "gpus": []}
    on_bus = bus if bus is not None else [card(gpu["bus_id"]) for gpu in seen["gpus"]]
    driver = {
        "tool": True,
        "version": seen["driver"],
        "cuda": seen["cuda"],
        "error": error,
        "lost": seen.get("lost", []),
    }
    access = {"engine": True, "error": None, "runtimes": ["runc"], "cdi": ["nvidia.com/gpu=0"], "containers": []}
    return {
        "schema": 1, "now": 1_764_000_000, "kernel": KERNEL, "boot_id": "b", "memory_total": 127_600_748 * 1024,
        "bus": list(on_bus), "gpus": seen["gpus"], "driver": {**driver, "state": dict(state)}, "owners": {},
        "links": {"pairs": {}, "states": {}}, "log": [], "log_read": True, "xids": [], "access": access, **changes,
    }  # fmt: skip


def by_check(findings: Sequence[Mapping[str, str]]) -> dict[str, list[Mapping[str, str]]]:
    """Sort findings by what was looked at."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for one in findings:
        found.setdefault(one["check"], []).append(one)
    return found


def bad(findings: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Return check and level of what is not well."""
    return [(one["check"], one["level"]) for one in findings if one["level"] != "ok"]
