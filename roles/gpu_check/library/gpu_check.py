"""Ansible module: say which NVIDIA GPUs a host has, and whether containers can get them. It changes nothing."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: gpu_check
short_description: Say which NVIDIA GPUs a host has
description:
  - A host without GPUs is fine, and said to be so. GPUs without a driver are a warning.
options:
  timeout: {description: Seconds to wait for nvidia-smi., type: float, default: 30}
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {"timeout": {"type": "float", "default": 30}}
NVIDIA, DISPLAY_CLASSES = "0x10de", ("0x0300", "0x0302")
FIELDS = ("name", "memory.total", "driver_version")
CDI_FOLDERS, CDI_SUFFIXES = ("/etc/cdi", "/var/run/cdi"), (".yaml", ".yml", ".json")
TOOLKIT_REMEDY = (
    "Install the NVIDIA Container Toolkit, then `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` "
    "or `nvidia-ctk runtime configure --runtime=docker` and a restart of docker."
)

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Finding = Dict[str, str]


def finding(check: str, level: str, found: str, expected: str, remedy: str = "") -> Finding:
    """Return a finding as every role of bootstrap spells it."""
    return {"role": "gpu_check", "check": check, "level": level, "found": found, "expected": expected, "remedy": remedy}


def output_of(argv: list[str], timeout: float) -> tuple[bool, str]:
    """Return whether a command succeeded, and what it printed."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        return False, str(error)
    except subprocess.TimeoutExpired:
        return False, f"no answer after {timeout:g} s"
    return done.returncode == 0, done.stdout.decode("utf-8", "replace").strip()


def pci_gpus() -> int:
    """Count NVIDIA's display and 3D controllers on the PCI bus, driver or not."""
    found = 0
    for device in Path("/sys/bus/pci/devices").glob("*"):
        found += _first_line(device / "vendor") == NVIDIA and _first_line(device / "class")[:6] in DISPLAY_CLASSES
    return found


def _first_line(path: Path) -> str:
    return _text(path).partition("\n")[0].strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def parse_gpus(text: str) -> list[dict[str, str]]:
    """Read nvidia-smi's CSV. `[N/A]` (memory of a unified-memory machine) stays a text: nothing is calculated here."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    return [dict(zip(FIELDS, row)) for row in rows if len(row) == len(FIELDS)]


def described(gpus: list[dict[str, str]]) -> str:
    """Return `2 x NVIDIA H100 80GB HBM3 (81559 MiB), 1 x …`, in the order in which they were found."""
    counted: dict[str, int] = {}
    for gpu in gpus:
        text = "{} ({})".format(gpu["name"], gpu["memory.total"])
        counted[text] = counted.get(text, 0) + 1
    return ", ".join(f"{count} x {text}" for text, count in counted.items())


def cuda_version(table: str) -> str:
    """Return the CUDA version in nvidia-smi's table; there is no query for it."""
    match = re.search(r"CUDA Version:\s*([0-9.]+)", table)
    return match.group(1) if match else "unknown"


def gpu_findings(on_bus: int, tool: bool, answered: bool, said: str, table: str) -> list[Finding]:
    """Judge what the bus and nvidia-smi say; pure."""
    if not tool and not on_bus:
        found = "no NVIDIA GPU: this host can serve the gateway, the UI and models on its CPU"
        return [finding("gpus", "ok", found, "any number")]
    if not tool:
        remedy = "Install NVIDIA's driver (580 or newer for current vLLM images), reboot, then run bootstrap again."
        return [
            finding(
                "driver", "warning", f"{on_bus} NVIDIA GPU(s) on the PCI bus, no nvidia-smi", "NVIDIA's driver", remedy
            )
        ]
    gpus = parse_gpus(said) if answered else []
    if not gpus:
        remedy = "Run nvidia-smi on the host. After a driver update it wants a reboot; a lost GPU wants a power cycle."
        return [
            finding(
                "driver",
                "warning",
                f"nvidia-smi fails: {said[:300] or 'it lists no GPU'}",
                "an answer of nvidia-smi",
                remedy,
            )
        ]
    return [
        finding("gpus", "ok", described(gpus), "any number"),
        finding(
            "driver",
            "ok",
            f"driver {gpus[0]['driver_version']}, CUDA {cuda_version(table)}",
            "any; images want their own minimum",
        ),
    ]


def access_finding(specs: list[str], runtimes: list[str]) -> Finding:
    """Say by which ways containers can be given GPUs; pure."""
    ways = [f"CDI ({', '.join(specs)})"] if specs else []
    ways += ["the nvidia runtime of docker"] if "nvidia" in runtimes else []
    expected = "a CDI specification or the nvidia runtime"
    if ways:
        return finding("gpu_access", "ok", " and ".join(ways), expected)
    return finding(
        "gpu_access", "warning", "neither a CDI specification nor the nvidia runtime", expected, TOOLKIT_REMEDY
    )


def cdi_specs() -> list[str]:
    """Return the CDI specifications that speak of NVIDIA's GPUs."""
    paths = [path for folder in CDI_FOLDERS for path in sorted(Path(folder).glob("*"))]
    return [str(path) for path in paths if path.suffix in CDI_SUFFIXES and "nvidia.com/gpu" in _text(path)]


def docker_runtimes(timeout: float) -> list[str]:
    """Return the names of docker's runtimes; none where no engine answers."""
    answered, text = output_of(["docker", "info", "--format", "{{json .Runtimes}}"], timeout)
    try:
        return sorted(json.loads(text)) if answered else []
    except (ValueError, TypeError):
        return []


def main() -> None:
    """Look at the bus, ask nvidia-smi, look for the ways into containers."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    timeout = module.params["timeout"]
    tool = shutil.which("nvidia-smi") is not None
    answered, said, table = False, "", ""
    if tool:
        answered, said = output_of(["nvidia-smi", "--query-gpu=" + ",".join(FIELDS), "--format=csv,noheader"], timeout)
        table = output_of(["nvidia-smi"], timeout)[1] if answered else ""
    findings = gpu_findings(pci_gpus(), tool, answered, said, table)
    if answered:
        findings.append(access_finding(cdi_specs(), docker_runtimes(timeout)))
    module.exit_json(changed=False, onprem_llm={"findings": findings})


if __name__ == "__main__":
    main()
