"""What a rehearsal host's pretended GPUs are, and the files that make it pretend."""

import functools
import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import yaml

from onprem_llm.errors import UsageError
from onprem_llm.planning.compatibility.machines import cuda_of
from onprem_llm.planning.compatibility.table import table

SMI_PATH = "/usr/bin/nvidia-smi"
SMI_LOG_PATH = "/usr/lib/onprem-llm-lab/smi_log.py"
GPUS_PATH = "/etc/onprem-llm-lab/gpus.json"
CDI_PATH = "/etc/cdi/nvidia.yaml"
TMPFILES_PATH = "/etc/tmpfiles.d/onprem-llm-lab-gpus.conf"
MODPROBE_PATH = "/usr/local/sbin/modprobe"
DRIVERS_PATH = "/etc/onprem-llm-lab/drivers"
USAGE_FOLDER = "/run/onprem-llm-lab"
MAX_GPUS = 16
# The driver that hosts have unless told otherwise.
DEFAULT_DRIVER = "580.95.05"

# Bus numbers as they are on 8-GPU servers; a host with more goes on counting.
BUSES = (0x18, 0x2A, 0x3A, 0x5D, 0x9A, 0xAB, 0xBA, 0xDB, 0x19, 0x2B, 0x3B, 0x5E, 0x9B, 0xAC, 0xBB, 0xDC)


@dataclass(frozen=True)
class GpuSet:
    """`count` GPUs of one model; the model is a key of models.yaml."""

    count: int
    model: str

    def __str__(self) -> str:
        """Write it as `--gpus` takes it."""
        return f"{self.count}x{self.model}"


@dataclass(frozen=True)
class File:
    """A file to be put on a host."""

    path: str
    text: str
    mode: int = 0o644


@functools.cache
def models() -> dict[str, dict[str, object]]:
    """Return the known GPU models."""
    loaded: dict[str, dict[str, object]] = yaml.safe_load(_data("models.yaml"))
    return loaded


def parse_gpus(values: Sequence[str], host_count: int) -> list[GpuSet | None]:
    """Return what each host gets, from `2xH100-80GB` (all hosts) and `host2=4xT4-16GB` (that one; it wins)."""
    sets: list[GpuSet | None] = [None] * host_count
    for_all = [value for value in values if "=" not in value]
    if len(for_all) > 1:
        raise UsageError(f"--gpus: {len(for_all)} values for all hosts: {', '.join(for_all)}", hint="give one")
    if for_all:
        sets = [_parse_set(for_all[0])] * host_count
    for value in values:
        if "=" not in value:
            continue
        host, _, text = value.partition("=")
        number = re.fullmatch(r"host(\d+)", host)
        if number is None or not 1 <= int(number[1]) <= host_count:
            expected = "host1" if host_count == 1 else f"host1 to host{host_count}"
            raise UsageError(f"--gpus {value}: found {host!r}, expected {expected}", hint="e.g. --gpus host2=4xT4-16GB")
        sets[int(number[1]) - 1] = _parse_set(text)
    return sets


def _parse_set(text: str) -> GpuSet | None:
    found = re.fullmatch(r"(\d+)x(.+)", text.strip())
    if found is None:
        raise UsageError(f"--gpus {text}: expected COUNTxMODEL", hint="e.g. --gpus 2xH100-80GB")
    count, model = int(found[1]), found[2]
    known = {name.lower(): name for name in models()}
    if model.lower() not in known:
        raise UsageError(f"--gpus {text}: unknown GPU model {model!r}", hint="known models: " + ", ".join(models()))
    if count > MAX_GPUS:
        raise UsageError(f"--gpus {text}: {count} GPUs, at most {MAX_GPUS} a host", hint="make more hosts")
    return GpuSet(count, known[model.lower()]) if count else None


def cuda_version(driver: str) -> str:
    """Return the CUDA version that a driver reports, by the table of what runs on what: `580.95.05` → `13.0`."""
    if re.fullmatch(r"\d{3}\.\d+(\.\d+)?", driver) is None:
        raise UsageError(f"--driver {driver}: expected a version such as {DEFAULT_DRIVER}")
    cuda = cuda_of(driver, table())
    if cuda is None:
        raise UsageError(f"--driver {driver}: the oldest known branch is {table().drivers[0].branch}")
    return str(cuda)


def host_files(host: str, gpus: GpuSet | None, driver: str) -> list[File]:
    """Return the files that give `host` its GPUs; none for a host without."""
    if gpus is None:
        return []
    facts = [_gpu_fact(host, index, gpus.model) for index in range(gpus.count)]
    hardware = {"driver_version": driver, "cuda_version": cuda_version(driver), "gpus": facts}
    return [
        File(SMI_PATH, _data("nvidia-smi"), 0o755),
        File(SMI_LOG_PATH, _data("smi_log.py")),
        File(GPUS_PATH, json.dumps(hardware, indent=1) + "\n"),
        File(CDI_PATH, _cdi_text([str(fact["uuid"]) for fact in facts])),
        File(TMPFILES_PATH, _tmpfiles_text(gpus.count)),
    ]


def driver_files(drivers: Mapping[str, str]) -> list[File]:
    """Return the files that pretend that the kernel loads NVIDIA's modules.

    `drivers`: version -> the words with which it refuses to load, empty where it loads.
    """
    lines = [f"{version} {cuda_version(version)} {words}".rstrip() for version, words in drivers.items()]
    return [File(MODPROBE_PATH, _data("modprobe"), 0o755), File(DRIVERS_PATH, "\n".join([*lines, ""]))]


def _gpu_fact(host: str, index: int, model: str) -> dict[str, object]:
    # From the names alone, so that a host keeps its GPUs' identities when it is made anew.
    seed = hashlib.sha256(f"{host}/{index}/{model}".encode()).digest()
    fact: dict[str, object] = {"minor": index, "model": model, **models()[model]}
    device = fact["pci_device"]
    fact["pci_device"] = f"0x{device:08X}"
    fact["uuid"] = f"GPU-{uuid.UUID(bytes=seed[:16], version=4)}"
    fact["serial"] = str(1_320_000_000_000 + int.from_bytes(seed[16:20], "big") % 10**10)
    fact["bus_id"] = f"00000000:{BUSES[index]:02X}:00.0"
    fact["vbios"] = f"96.00.89.00.{seed[20]:02X}"
    return fact


def _cdi_text(uuids: Sequence[str]) -> str:
    def node(path: str) -> dict[str, str]:
        return {"path": path, "hostPath": "/dev/null"}

    def mount(path: str) -> dict[str, object]:
        return {"hostPath": path, "containerPath": path, "options": ["ro", "nosuid", "nodev", "bind"]}

    def device(name: str, indexes: Sequence[int]) -> dict[str, object]:
        return {"name": name, "containerEdits": {"deviceNodes": [node(f"/dev/nvidia{index}") for index in indexes]}}

    indexes = range(len(uuids))
    spec = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [node("/dev/nvidiactl"), node("/dev/nvidia-uvm")],
            "mounts": [mount(SMI_PATH), mount(SMI_LOG_PATH), mount(GPUS_PATH), mount(USAGE_FOLDER)],
        },
        "devices": [
            *(device(str(index), [index]) for index in indexes),
            *(device(one, [index]) for index, one in enumerate(uuids)),
            device("all", indexes),
        ],
    }
    return "# Written by `onprem-llm lab up`: pretended GPUs.\n" + yaml.safe_dump(spec, sort_keys=False)


def _tmpfiles_text(count: int) -> str:
    # systemd-tmpfiles makes them at every boot; `c` with 1:3 is /dev/null under another name.
    names = [*(f"nvidia{index}" for index in range(count)), "nvidiactl", "nvidia-uvm"]
    return "".join(f"c /dev/{name} 0666 root root - 1:3\n" for name in names)


def _data(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
