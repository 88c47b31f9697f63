"""What nvidia-smi says. Every call has a time limit: with a sick driver the real tool hangs for ever."""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
from pathlib import Path

from ansible.module_utils.onprem_llm_gpu_matrix import matrix
from ansible.module_utils.onprem_llm_limited import call

TIME_LIMIT = 10.0  # seconds a call
DEVICES = Path("/dev")
FIELDS = ("index", "uuid", "name", "driver_version", "memory.total", "memory.used", "compute_cap")
OLD_FIELDS = FIELDS[:-1]  # compute_cap came with driver 510
APP_FIELDS = ("gpu_uuid", "pid", "process_name", "used_memory")
CUDA_VERSION = re.compile(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)")
NOT_SAID = ("", "N/A", "[N/A]", "[Not Supported]", "Not Supported", "[Unknown Error]", "[GPU requires reset]")


class GpuToolError(Exception):
    """nvidia-smi failed or did not answer; the text is for a person."""


def _call(tool, *arguments):
    """Run the tool and return its output; it is left behind, not waited for, where it cannot even be killed."""
    code, text = call([tool, *arguments], TIME_LIMIT)
    if code is None:
        raise GpuToolError(f"nvidia-smi did not answer within {TIME_LIMIT:.0f} s; see `dmesg | grep -i nvrm`")
    if code != 0:
        raise GpuToolError(f"nvidia-smi failed (exit code {code}): {text.strip()[:300]}")
    return text


def _said(text):
    return None if text in NOT_SAID else text


def _number(text):
    """Return a number of MiB or an index; None where the tool says [N/A]."""
    said = _said(text)
    return int(float(said)) if said is not None and re.match(r"^\d+(\.\d+)?$", said) else None


def _rows(text, width):
    """Split the tool's CSV; a process name may hold commas, so surplus fields are put back together."""
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) > width:
            parts[2 : len(parts) - width + 3] = [",".join(parts[2 : len(parts) - width + 3])]
        if len(parts) == width:
            yield parts


def _query(tool, what, fields):
    text = _call(tool, f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits")
    return [dict(zip(fields, row)) for row in _rows(text, len(fields))]


def _gpus(tool):
    try:
        return _query(tool, "gpu", FIELDS)
    except GpuToolError as error:
        if "compute_cap" not in str(error):
            raise
        return _query(tool, "gpu", OLD_FIELDS)


def _device(row, apps):
    return {
        "index": _number(row["index"]),
        "uuid": row["uuid"],
        "name": row["name"],
        "memory_total": _number(row["memory.total"]),
        "memory_used": _number(row["memory.used"]),
        "compute_cap": _said(row.get("compute_cap", "")),
        "processes": [
            {"pid": _number(app["pid"]), "name": app["process_name"], "memory": _number(app["used_memory"])}
            for app in apps
            if app["gpu_uuid"] == row["uuid"]
        ],
    }


def _tool():
    return shutil.which("nvidia-smi", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/local/bin:/usr/lib/wsl/lib")


def _pci_id(text):
    """Return vendor:device of 0xDDDDVVVV, as the tool writes it; None where it is none."""
    if not re.match(r"^0x[0-9A-Fa-f]+$", text):
        return None
    number = int(text, 16)
    return f"{number & 0xFFFF:04x}:{number >> 16:04x}"


def described():
    """Return the GPUs as facts.json has them; memory in bytes. Raises GpuToolError or OSError."""
    tool = _tool()
    if tool is None:
        return []
    text = _call(tool, "--query-gpu=name,memory.total,pci.device_id", "--format=csv,noheader,nounits")
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 2)]
        if len(parts) == 3:
            name, memory, device = parts
            whole = int(memory) * 1024**2 if memory.isdigit() else None
            found.append({"name": name, "memory_bytes": whole, "pci_id": _pci_id(device)})
    return found


def _links(tool):
    """Return how GPUs reach each other, where there are more than two: of two there is nothing to be chosen."""
    if len(list(DEVICES.glob("nvidia[0-9]*"))) <= 2:
        return {}
    try:
        return matrix(_call(tool, "topo", "-m"))
    except (GpuToolError, OSError):
        return {}


def gpus():
    """Return the `gpus` part of the probe; memory in MiB. No nvidia-smi is an answer too, not an error."""
    found = {"tool": False, "driver": None, "cuda": None, "error": None, "devices": [], "links": {}}
    tool = _tool()
    if tool is None:
        return found
    found["tool"] = True
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        rows = pool.submit(_gpus, tool)
        apps = pool.submit(_query, tool, "compute-apps", APP_FIELDS)
        table = pool.submit(_call, tool)
        links = pool.submit(_links, tool)
        try:
            devices = rows.result()
            version = CUDA_VERSION.search(table.result())
            found["driver"] = next((_said(row["driver_version"]) for row in devices), None)
            found["cuda"] = version.group(1) if version else None
            found["devices"] = [_device(row, apps.result()) for row in devices]
            found["links"] = links.result()
        except (GpuToolError, OSError) as error:
            found["error"] = str(error)
    return found
