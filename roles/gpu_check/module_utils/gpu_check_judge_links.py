# SPDX-License-Identifier: Apache-2.0
"""Judging how fast GPUs can be: power, heat, PCIe, NVLink and the fabric; and what the kernel's log says. Pure."""

from __future__ import annotations

import time

from ansible.module_utils.gpu_check_findings import (
    ERROR,
    OK,
    WARNING,
    Facts,
    Finding,
    Gpu,
    about,
    finding,
    judged,
    named,
)
from ansible.module_utils.gpu_check_xids import meaning

DAY = 86_400  # seconds; a fault of the hardware that is older has been lived with
MOST_XIDS = 5
BUSY = 20  # per cent; below it a card saves power, and its link with it
HEAT = "Look at fans, dust, inlet air and the neighbours in the rack."
POWER = "The board's power brake: look at the power supplies, their redundancy, and the cables."


def link_findings(facts: Facts) -> list[Finding]:
    """Return what is to be said of speed and of the kernel's log."""
    gpus = facts["gpus"]
    return [
        *_slow(gpus),
        *_power(gpus),
        *_pcie(gpus),
        *_nvlink(facts),
        *_fabric(facts),
    ]


def _slow(gpus: list[Gpu]) -> list[Finding]:
    def now(gpu: Gpu) -> str | None:
        reasons = set(gpu["reasons"])
        if reasons & {"hw_thermal_slowdown", "sw_thermal_slowdown"}:
            return "slowed by heat now" + (f" ({gpu['temperature']} C)" if gpu["temperature"] is not None else "")
        if "hw_power_brake_slowdown" in reasons:
            return "slowed by the power brake now"
        # A change of the clocks shows as this too, for a moment, on a card that idles.
        return "slowed by the hardware now" if "hw_slowdown" in reasons and "gpu_idle" not in reasons else None

    def before(gpu: Gpu) -> str | None:
        times = [f"by {cause} for {seconds} s" for cause, seconds in gpu["slowed"].items()]
        return f"slowed {' and '.join(times)} since the driver was loaded" if times and not now(gpu) else None

    text = "; ".join(part for part in (about(gpus, now), about(gpus, before)) if part)
    remedy = HEAT if "heat" in text else POWER
    return judged("throttling", WARNING, text, "clocks as they are asked for", remedy) or [
        finding("throttling", OK, "none", "clocks as they are asked for")
    ]


def _power(gpus: list[Gpu]) -> list[Finding]:
    def limited(gpu: Gpu) -> str | None:
        limit, usual = gpu["power_limit"], gpu["power_default"]
        return f"limited to {limit:g} W of {usual:g} W" if limit and usual and limit < usual - 1 else None

    remedy = "nvidia-smi -i N -pl WATTS raises it again, where nobody meant it."
    return judged("power_limit", WARNING, about(gpus, limited), "the card's own limit", remedy)


def _pcie(gpus: list[Gpu]) -> list[Finding]:
    """Judge lanes at any time, the generation under load alone: an idle card lowers it."""

    def narrow(gpu: Gpu) -> str | None:
        width, most = gpu["pcie"].get("width"), gpu["pcie"].get("max_width")
        # A GPU on the processor's own link (GB10) and one in a virtual machine show a slot that is none.
        real = gpu["memory_total"] is not None and gpu["virtualization"] is None
        return f"{width} of {most} PCIe lanes" if real and width and most and width < most else None

    def early(gpu: Gpu) -> str | None:
        gen, most = gpu["pcie"].get("gen"), gpu["pcie"].get("max_gen")
        loaded = (gpu["utilization"] or 0) >= BUSY and gpu["state"] == "P0" and gpu["virtualization"] is None
        return f"PCIe generation {gen} of {most} under load" if loaded and gen and most and gen < most else None

    text = "; ".join(part for part in (about(gpus, narrow), about(gpus, early)) if part)
    remedy = "Reseat the card, look at its riser and at the slot's bifurcation in the firmware; look again under load."
    if text:
        return [finding("pcie", WARNING, text, "all lanes", remedy)]
    return judged("pcie", OK, about(gpus, _lanes), "all lanes", "")


def _lanes(gpu: Gpu) -> str | None:
    width, most, highest = (gpu["pcie"].get(key) for key in ("width", "max_width", "max_gen"))
    beside = f" of {most} (as the virtual machine shows it)" if width and most and width < most else ""
    return f"{width} lanes{beside}, generation {highest} at most" if width and highest else None


def _nvlink(facts: Facts) -> list[Finding]:
    gpus, states, pairs = facts["gpus"], facts["links"]["states"], facts["links"]["pairs"]
    by_index = {str(gpu["index"]): gpu for gpu in gpus}
    linked = {name: state for name, state in states.items() if state["up"]}
    dark = [by_index[name] for name, state in states.items() if not state["up"] and name in by_index]
    expected = "all links of a card, and of cards like it"
    remedy = (
        "Look at nvidia-smi nvlink --status and --errorcounters, at bridges and their seat; on NVSwitch machines at "
        "nvidia-fabricmanager. Cards that a board links with fewer lanes by design show this too."
    )
    found = []
    if linked and dark:
        found.append(finding("nvlink", ERROR, f"{named(dark, gpus)}: all NVLinks are inactive", expected, remedy))

    def down(gpu: Gpu) -> str | None:
        links = (linked.get(str(gpu["index"])) or {"down": []})["down"]
        return f"NVLink {', '.join(str(one) for one in links)} inactive" if links else None

    found += judged("nvlink", WARNING, about(gpus, down), expected, remedy)
    return found or judged("nvlink", OK, _topology(pairs, len(gpus)), "any", "")


def _topology(pairs: dict[str, str], count: int) -> str:
    """Say in a few words how the cards reach each other."""
    by_kind: dict[str, list[str]] = {}
    for pair, kind in pairs.items():
        by_kind.setdefault(kind, []).append(pair)
    if not by_kind:
        return ""
    if len(by_kind) == 1:
        kind = next(iter(by_kind))
        return f"all {count} GPUs by {'NVLink, ' if kind.startswith('NV') else 'PCIe alone, '}{kind}"
    links = [f"{kind}: {', '.join(those)}" for kind, those in by_kind.items() if kind.startswith("NV")]
    others = sorted(kind for kind in by_kind if not kind.startswith("NV"))
    return f"NVLink {'; '.join(links)}; else {', '.join(others)}" if links else f"PCIe alone: {', '.join(others)}"


def _fabric(facts: Facts) -> list[Finding]:
    def wrong(gpu: Gpu) -> str | None:
        state, status = gpu["fabric"].get("state"), gpu["fabric"].get("status")
        bandwidth = gpu["fabric"].get("health/bandwidth")
        if state is None:
            return None
        if state != "Completed":
            return f"the NVSwitch fabric is not ready ({state})"
        if status not in (None, "Success"):
            return f"the NVSwitch fabric failed ({status})"
        return "the NVSwitch fabric has lost bandwidth" if bandwidth and bandwidth.lower() == "degraded" else None

    version = facts["driver"]["version"] or "the driver's version"
    remedy = (
        f"systemctl status nvidia-fabricmanager: it must run, in exactly the driver's version ({version}). Until then "
        "programs fail with CUDA error 802, system not yet initialized."
    )
    return judged("fabric", ERROR, about(facts["gpus"], wrong), "Completed, Success", remedy)


def xid_findings(facts: Facts) -> list[Finding]:
    """Return a finding for each Xid of this boot, newest first; those that only follow from others are counted last."""
    if facts["log_read"] is False:
        remedy = "Run it as root (--ask-become-pass); the host wants journalctl or dmesg."
        return [finding("xid", WARNING, "the kernel's log cannot be read", "its lines of NVRM", remedy)]
    told, notes = [], []
    for one in facts["xids"]:
        description, level, remedy = _meaning(one)
        old = facts["now"] - (one["last"] or facts["now"]) > DAY
        level = {ERROR: WARNING, WARNING: OK}.get(level, OK) if old else level
        text = f"{one['kind']} {one['code']} ({description}) {_where(one, facts)}, {_times(one)}"
        (notes if level == OK else told).append(finding("xid", level, text, "none since boot", remedy))
    left = len(told) - MOST_XIDS
    if left > 0:
        told[MOST_XIDS - 1]["found"] += f"; and {left} more kinds: `journalctl -k | grep Xid`"
    told = told[:MOST_XIDS] + notes[:MOST_XIDS]
    return told or [finding("xid", OK, "no Xid since boot", "none since boot")]


def _meaning(one: Facts) -> tuple[str, str, str]:
    if one["kind"] == "Xid":
        return meaning(one["code"])
    remedy = "An NVSwitch's own report: look at nvidia-fabricmanager's log (journalctl -u nvidia-fabricmanager)."
    return one["text"][:60] or "NVSwitch", ERROR if one["fatal"] else WARNING, remedy


def _where(one: Facts, facts: Facts) -> str:
    gpu = next((gpu for gpu in facts["gpus"] if (gpu["bus_id"] or "")[:10] == one["bus_id"][:10]), None)
    return f"on GPU {gpu['index']} ({gpu['bus_id']})" if gpu else f"at {one['bus_id']}"


def _times(one: Facts) -> str:
    often = "once" if one["count"] == 1 else f"{one['count']} times"
    if one["last"] is None:
        return often
    return f"{often}, last {time.strftime('%Y-%m-%d %H:%M', time.gmtime(one['last']))} UTC"
