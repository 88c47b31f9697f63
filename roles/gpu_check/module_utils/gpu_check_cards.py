# SPDX-License-Identifier: Apache-2.0
"""Reading the XML of `nvidia-smi -q -x`: the GPUs of a host, one mapping each.

Field names changed over the driver branches: clocks_throttle_reasons became clocks_event_reasons, power_readings
gpu_power_readings, power_draw instant_power_draw. What a card cannot say is None; what it fails to say (ERR!,
[Unknown Error]) is named under `unreadable`. Memory is in MiB, power in W, link widths in lanes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any, Dict, Iterable

from ansible.module_utils.gpu_check_bus import bus_id

Gpu = Dict[str, Any]
NOT_SAID = re.compile(
    r"^\[?(N/A|Not Supported|Not Available|Not Found|None|Requested functionality has been deprecated|"
    r"Function Not Found|Insufficient Permissions)?\]?$",
    re.IGNORECASE,
)
FAILED = re.compile(
    r"ERR!|Unknown Error|GPU is lost|GPU requires reset|Reset Required|In use by another", re.IGNORECASE
)
FIELDS = (
    *("uuid", "bus_id", "memory_total", "memory_used", "memory_free", "persistence", "addressing", "compute_mode"),
    *("ecc", "ecc_pending", "ecc_volatile", "ecc_aggregate", "sram_threshold", "remapped", "retired"),
    *("mig", "mig_pending", "virtualization", "license", "power_limit", "power_default", "temperature"),
    *("utilization", "state", "reset"),
)
COUNTERS = {"sw_therm_slowdown": "heat", "hw_therm_slowdown": "heat", "hw_power_brake": "the power brake"}


class SmiError(Exception):
    """nvidia-smi failed, hangs, or says what cannot be read; the text is for a person."""


def parsed(log_text: str) -> dict[str, Any]:
    """Read nvidia-smi's XML. Raises SmiError where there is none, or no GPU in it."""
    begin = log_text.find("<nvidia_smi_log")
    try:
        log = ET.fromstring(log_text[begin:] if begin >= 0 else "")  # noqa: S314 (the host's own tool says it, without its DTD)
    except ET.ParseError:
        raise SmiError(f"nvidia-smi -q -x prints no XML: {' '.join(log_text.split())[:200]}") from None
    gpus = [_gpu(index, node) for index, node in enumerate(log.findall("gpu"))]
    if not gpus:
        raise SmiError(f"nvidia-smi lists no GPU: {' '.join(log.itertext()).strip()[:200]}")
    return {"driver": text(log, "driver_version"), "cuda": _cuda(log), "gpus": gpus}


def _cuda(log: ET.Element) -> str | None:
    """Return the CUDA version; newer drivers' tables call it CUDA UMD Version, and the element's name may follow."""
    return text(log, "cuda_version") or text(log, "cuda_umd_version")


def blank(index: int) -> Gpu:
    """Return a GPU of which nothing is known."""
    nothing: Gpu = dict.fromkeys(FIELDS)
    lists: Gpu = {"mig_devices": [], "reasons": [], "processes": [], "unreadable": []}
    return {**nothing, **lists, "index": index, "name": "unknown", "pcie": {}, "slowed": {}, "fabric": {}}


def _gpu(index: int, node: ET.Element) -> Gpu:
    power = node.find("gpu_power_readings")
    power = power if power is not None else node.find("power_readings")
    gpu = blank(index)
    gpu.update(
        uuid=text(node, "uuid"),
        bus_id=bus_id(text(node, "pci/pci_bus_id") or node.get("id")),
        name=text(node, "product_name") or "unknown",
        **{f"memory_{key}": number(text(node, f"fb_memory_usage/{key}")) for key in ("total", "used", "free")},
        persistence=text(node, "persistence_mode"),
        addressing=text(node, "addressing_mode"),
        compute_mode=text(node, "compute_mode"),
        virtualization=text(node, "gpu_virtualization_mode/virtualization_mode"),
        license=text(node, "vgpu_software_licensed_product/license_status"),
        state=text(node, "performance_state"),
        temperature=number(text(node, "temperature/gpu_temp")),
        utilization=number(text(node, "utilization/gpu_util")),
        power_limit=number(text(power, "current_power_limit") or text(power, "power_limit")),
        power_default=number(text(power, "default_power_limit")),
        reset=_reset(node),
        unreadable=sorted({one.tag for one in node.iter() if FAILED.search(one.text or "")}),
    )
    gpu.update(_memory_health(node), **_partitions(node), **_clocks(node))
    gpu["pcie"] = _pcie(node)
    gpu["fabric"] = {key: text(node, f"fabric/{key}") for key in ("state", "status", "health/bandwidth")}
    gpu["processes"] = [_process(one) for one in node.findall("processes/process_info")]
    return gpu


def _memory_health(node: ET.Element) -> dict[str, Any]:
    errors = {}
    for part in ("volatile", "aggregate"):
        counts = [
            number(one.text)
            for one in node.findall(f"ecc_errors/{part}/*")
            if "uncorrectable" in one.tag and "threshold" not in one.tag
        ]
        # Before 450: double_bit/total.
        counts.append(number(text(node, f"ecc_errors/{part}/double_bit/total")))
        known = [int(count) for count in counts if count is not None]
        errors[part] = sum(known) if known else None
    rows = node.find("remapped_rows")
    pages = node.find("retired_pages")
    single, double = "multiple_single_bit_retirement/retired_count", "double_bit_retirement/retired_count"
    return {
        "ecc": text(node, "ecc_mode/current_ecc"),
        "ecc_pending": text(node, "ecc_mode/pending_ecc"),
        "ecc_volatile": errors["volatile"],
        "ecc_aggregate": errors["aggregate"],
        "sram_threshold": _yes(text(node, "ecc_errors/aggregate/sram_threshold_exceeded")),
        "remapped": _known({
            "corrected": number(text(rows, "remapped_row_corr")),
            "uncorrected": number(text(rows, "remapped_row_unc")),
            "pending": _yes(text(rows, "remapped_row_pending")),
            "failed": _yes(text(rows, "remapped_row_failure")),
        }),
        "retired": _known({
            "single": number(text(pages, single)),
            "double": number(text(pages, double)),
            "pending": _any(_yes(text(pages, f"pending_{name}")) for name in ("retirement", "blacklist")),
        }),
    }  # fmt: skip


def _partitions(node: ET.Element) -> dict[str, Any]:
    devices = [
        {"index": number(text(one, "index")), "memory": number(text(one, "fb_memory_usage/total"))}
        for one in node.findall("mig_devices/mig_device")
    ]
    current, pending = text(node, "mig_mode/current_mig"), text(node, "mig_mode/pending_mig")
    return {"mig": current, "mig_pending": pending, "mig_devices": devices}


def _clocks(node: ET.Element) -> dict[str, Any]:
    active = set()
    for one in (*node.findall("clocks_event_reasons/*"), *node.findall("clocks_throttle_reasons/*")):
        if (one.text or "").strip() == "Active":
            active.add(re.sub(r"^clocks_(event|throttle)_reason_", "", one.tag))
    slowed: dict[str, int] = {}
    for name, cause in COUNTERS.items():
        prefix = "clocks_event_reasons_counters"
        counted = number(text(node, f"{prefix}/{prefix}_{name}"))  # microseconds since the driver was loaded
        slowed[cause] = max(slowed.get(cause, 0), int((counted or 0) // 1_000_000))
    return {"reasons": sorted(active), "slowed": {cause: seconds for cause, seconds in slowed.items() if seconds}}


def _pcie(node: ET.Element) -> dict[str, Any]:
    link = "pci/pci_gpu_link_info"
    return {
        "gen": number(text(node, f"{link}/pcie_gen/current_link_gen")),
        "max_gen": number(text(node, f"{link}/pcie_gen/max_link_gen")),
        "width": number(text(node, f"{link}/link_widths/current_link_width")),
        "max_width": number(text(node, f"{link}/link_widths/max_link_width")),
    }


def _process(node: ET.Element) -> dict[str, Any]:
    return {
        "pid": number(text(node, "pid")),
        "type": text(node, "type") or "C",
        "name": text(node, "process_name") or "unknown",
        "memory": number(text(node, "used_memory")),
    }


def _reset(node: ET.Element) -> str | None:
    """Return what the driver asks for, None where it asks for nothing."""
    action = text(node, "gpu_recovery_action")
    if action:
        return action
    return "reset" if _yes(text(node, "gpu_reset_status/reset_required")) else None


def text(node: ET.Element | None, path: str) -> str | None:
    """Return the text of the element at `path`; None where there is none, or nothing is said."""
    return said(node.findtext(path)) if node is not None else None


def said(words: str | None) -> str | None:
    """Return what is said, None for [N/A] and all its spellings."""
    stripped = (words or "").strip()
    return None if NOT_SAID.match(stripped) or FAILED.search(stripped) else stripped


def number(words: str | None) -> float | None:
    """Return the number at the beginning of `81559 MiB`, `16x`, `700.00 W`; whole ones as int."""
    found = re.match(r"^-?\d+(\.\d+)?", (words or "").strip())
    if found is None:
        return None
    value = float(found.group())
    return int(value) if value.is_integer() else value


def _yes(words: str | None) -> bool | None:
    return None if words is None else words.lower() == "yes"


def _any(answers: Iterable[bool | None]) -> bool | None:
    """Return whether one says yes; None where none says anything."""
    told = [one for one in answers if one is not None]
    return any(told) if told else None


def _known(values: dict[str, Any]) -> dict[str, Any] | None:
    return values if any(value is not None for value in values.values()) else None
