# SPDX-License-Identifier: Apache-2.0
"""What a finding is, and how GPUs are named in one."""

from __future__ import annotations

from typing import Any, Callable, Dict

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Finding = Dict[str, str]
Gpu = Dict[str, Any]
Facts = Dict[str, Any]
OK, WARNING, ERROR = "ok", "warning", "error"


def finding(check: str, level: str, found: str, expected: str, remedy: str = "") -> Finding:
    """Return a finding as every role of bootstrap spells it."""
    return {"role": "gpu_check", "check": check, "level": level, "found": found, "expected": expected, "remedy": remedy}


def named(gpus: list[Gpu], every: list[Gpu]) -> str:
    """Name some of a host's GPUs: one or two with their place on the bus, all of several as all."""
    if len(gpus) == len(every) and len(every) > 2:
        return f"all {len(every)} GPUs"
    if len(gpus) <= 2:
        return ", ".join("GPU {} ({})".format(gpu["index"], gpu["bus_id"] or "no bus id") for gpu in gpus)
    return "GPU " + ", ".join(str(gpu["index"]) for gpu in gpus)


def about(gpus: list[Gpu], detail: Callable[[Gpu], str | None]) -> str:
    """Return `GPU 0 (…): detail; GPU 2, 3, 4: another`, of those of which there is something to say; else empty."""
    alike: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        text = detail(gpu)
        if text:
            alike.setdefault(text, []).append(gpu)
    return "; ".join(f"{named(those, gpus)}: {text}" for text, those in alike.items())


def judged(check: str, level: str, text: str, expected: str, remedy: str) -> list[Finding]:
    """Return one finding where `text` says something, none where it is empty."""
    return [finding(check, level, text, expected, remedy)] if text else []
