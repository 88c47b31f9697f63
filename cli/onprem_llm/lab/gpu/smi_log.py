"""The longer answers of the stand-in for nvidia-smi: -q -x, topo -m, nvlink --status. Nothing here touches a GPU.

Elements and their order are those that others have printed (tests/unit/modules/gpu_cases names them), as far as
somebody reads them. It runs on a rehearsal host with the host's bare python3; `gpu` is nvidia-smi's Gpu.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

# GB/s a link, by the number of links; not checked.
SPEEDS = {18: 26.562, 12: 25}


def gpu_log(gpu: Any) -> dict[str, Any]:
    """Return what -q -x says of a GPU, as far as somebody reads it: element -> text, or elements."""
    ecc = 0 if gpu.ecc == "Enabled" else None
    errors = ("sram_correctable", "sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_correctable")
    counts = dict.fromkeys((*errors, "dram_uncorrectable"), ecc)
    rows = {"corr": 0, "unc": 0, "pending": "No", "failure": "No"}
    reasons = ("sw_power_cap", "hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
    active = {"gpu_idle": "Not Active" if gpu.load else "Active", **dict.fromkeys(reasons, "Not Active")}
    watts = f"{gpu.fact['power_w']:.2f} W"
    return {
        "product_name": gpu.fact["name"],
        "persistence_mode": "Enabled" if gpu.data_center else "Disabled",
        "addressing_mode": "None",
        "mig_mode": {"current_mig": gpu.mig, "pending_mig": gpu.mig},
        "mig_devices": "None",
        "serial": gpu.fact["serial"] if gpu.data_center else None,
        "uuid": gpu.fact["uuid"],
        "minor_number": gpu.fact["minor"],
        "gpu_virtualization_mode": {"virtualization_mode": "None", "host_vgpu_mode": None},
        "gpu_reset_status": {"reset_required": "No", "drain_and_reset_recommended": "No"},
        "pci": {
            "pci_device_id": gpu.fact["pci_device"][2:],
            "pci_bus_id": gpu.fact["bus_id"],
            "pci_gpu_link_info": {
                "pcie_gen": {"max_link_gen": 4, "current_link_gen": 4},
                "link_widths": {"max_link_width": "16x", "current_link_width": "16x"},
            },
        },
        "performance_state": gpu.pstate,
        "clocks_event_reasons": {f"clocks_event_reason_{name}": text for name, text in active.items()},
        "fb_memory_usage": {
            "total": f"{gpu.fact['memory_mib']} MiB",
            "reserved": f"{gpu.fact['reserved_mib']} MiB",
            "used": f"{gpu.used} MiB",
            "free": f"{gpu.fact['memory_mib'] - gpu.fact['reserved_mib'] - gpu.used} MiB",
        },
        "compute_mode": "Default",
        "utilization": {"gpu_util": f"{gpu.load} %", "memory_util": f"{gpu.load // 2} %"},
        "ecc_mode": {"current_ecc": gpu.ecc, "pending_ecc": gpu.ecc},
        "ecc_errors": {
            "volatile": counts,
            "aggregate": {**counts, "sram_threshold_exceeded": "No" if ecc == 0 else None},
        },
        "remapped_rows": {f"remapped_row_{name}": text for name, text in rows.items()} if ecc == 0 else None,
        "temperature": {"gpu_temp": f"{gpu.temperature} C"},
        "gpu_power_readings": {
            "power_draw": f"{gpu.draw:.2f} W",
            "current_power_limit": watts,
            "default_power_limit": watts,
        },
        "fabric": {"state": "Completed" if gpu.links else None, "status": "Success" if gpu.links else None},
        "processes": [process_log(process) for process in gpu.processes],
    }


def process_log(process: dict[str, Any]) -> dict[str, Any]:
    """Return a program on a GPU as -q -x has it."""
    return {
        "pid": process["pid"],
        "type": "C",
        "process_name": process["name"],
        "used_memory": f"{process['used_memory_mib']} MiB",
    }


def altered(gpu: Any) -> dict[str, Any]:
    """Return the log of a GPU with what gpu-usage.json says under `log` in place: {"ecc_errors/volatile/…": "3"}."""
    log = gpu_log(gpu)
    for path, text in gpu.usage.get("log", {}).items():
        *folders, name = path.split("/")
        part: Any = log
        for folder in folders:
            part = part.get(folder) if isinstance(part, dict) else None
        if not isinstance(part, dict) or name not in part:
            raise KeyError(path)
        part[name] = text
    return log


def xml_lines(tree: dict[str, Any], depth: int) -> Iterator[str]:
    """Yield the lines of elements; a list is of programs."""
    for name, value in tree.items():
        pad = "\t" * depth
        if isinstance(value, dict):
            yield from (f"{pad}<{name}>", *xml_lines(value, depth + 1), f"{pad}</{name}>")
        elif isinstance(value, list):
            inner = (line for one in value for line in xml_lines({"process_info": one}, depth + 1))
            yield from (f"{pad}<{name}>", *inner, f"{pad}</{name}>")
        else:
            text = "N/A" if value is None else str(value)
            yield f"{pad}<{name}>{text.replace('&', '&amp;').replace('<', '&lt;')}</{name}>"


def xml_text(driver: str, cuda: str, gpus: Sequence[Any]) -> str:
    """Return the whole of -q -x."""
    head = {"timestamp": time.strftime("%a %b %e %H:%M:%S %Y"), "driver_version": driver, "cuda_version": cuda}
    lines = ['<?xml version="1.0" ?>', '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">', "<nvidia_smi_log>"]
    lines += xml_lines({**head, "attached_gpus": len(gpus)}, 1)
    for gpu in gpus:
        lines += [f'\t<gpu id="{gpu.fact["bus_id"]}">', *xml_lines(altered(gpu), 2), "\t</gpu>"]
    return "\n".join([*lines, "</nvidia_smi_log>"])


def topology(gpus: Sequence[Any]) -> str:
    """Return the matrix of `topo -m`; the machine's processors stand where a host's would."""
    last = f"0-{max(1, os.cpu_count() or 1) - 1}"
    lines = ["\t" + "\t".join(f"GPU{gpu.index}" for gpu in gpus) + "\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID"]
    for gpu in gpus:
        cells = [" X " if other is gpu else _way(gpu, other) for other in gpus]
        lines.append("\t".join([f"GPU{gpu.index}", *cells, last, "0", "\tN/A"]))
    return "\n".join(lines)


def _way(gpu: Any, other: Any) -> str:
    return f"NV{gpu.links}" if gpu.links and other.links else "PHB"


def link_states(gpus: Sequence[Any]) -> str:
    """Return each GPU's links; `links_down` of gpu-usage.json are inactive."""
    lines = []
    for gpu in gpus:
        lines.append(f"GPU {gpu.index}: {gpu.fact['name']} (UUID: {gpu.fact['uuid']})")
        down = gpu.usage.get("links_down", [])
        speed = SPEEDS.get(gpu.links, 25)
        lines += [f"\t Link {n}: {'<inactive>' if n in down else f'{speed} GB/s'}" for n in range(gpu.links)]
    return "\n".join(lines)
