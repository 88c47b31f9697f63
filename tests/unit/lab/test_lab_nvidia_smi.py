"""The stand-in must print what the real tool prints: whole outputs are compared."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib import resources
from pathlib import Path

import pytest

from onprem_llm.lab.gpu import stand_in

TABLE = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA H100 80GB HBM3          On  |   00000000:18:00.0 Off |                    0 |
| N/A   30C    P0             70W /  700W |       0MiB /  81559MiB |      0%      Default |
|                                         |                        |             Disabled |
+-----------------------------------------+------------------------+----------------------+
|   1  NVIDIA H100 80GB HBM3          On  |   00000000:2A:00.0 Off |                    0 |
| N/A   51C    P0            385W /  700W |   70000MiB /  81559MiB |     50%      Default |
|                                         |                        |             Disabled |
+-----------------------------------------+------------------------+----------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|    1   N/A  N/A            4711      C   /usr/bin/python3                      70000MiB |
+-----------------------------------------------------------------------------------------+
"""
BUSY = {"1": {"utilization": 50, "processes": [{"pid": 4711, "name": "/usr/bin/python3", "used_memory_mib": 70000}]}}


class Host:
    """A folder with the files of a rehearsal host, and nvidia-smi run on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for file in stand_in.host_files("lab-1", stand_in.GpuSet(2, "H100-80GB"), "580.95.05"):
            self.put(file.path, file.text)
        for index in range(2):
            self.put(f"/dev/nvidia{index}", "")

    def put(self, path: str, text: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")

    def occupy(self, usage: object) -> None:
        self.put(f"{stand_in.USAGE_FOLDER}/gpu-usage.json", json.dumps({"gpus": usage}))

    def smi(self, *argv: str) -> tuple[int, str]:
        script = resources.files("onprem_llm.lab.gpu").joinpath("nvidia-smi")
        environment = {**os.environ, "ONPREM_LLM_LAB_ROOT": str(self.root), "LC_ALL": "C.UTF-8"}
        # -I -S: the host's bare python3, which also starts twice as fast.
        command = [sys.executable, "-I", "-S", str(script), *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_table_is_the_real_tools(host: Host) -> None:
    host.occupy(BUSY)
    code, out = host.smi()
    assert code == 0
    assert out.partition("\n")[2] == TABLE


def test_idle_gpus_have_no_processes(host: Host) -> None:
    _, out = host.smi()
    assert "|  No running processes found" + " " * 61 + "|" in out.splitlines()


def test_query_gpu_as_csv(host: Host) -> None:
    host.occupy(BUSY)
    fields = "index,name,memory.total,memory.used,memory.free,utilization.gpu,power.limit,compute_cap,fan.speed"
    assert host.smi(f"--query-gpu={fields}", "--format=csv") == (
        0,
        "index, name, memory.total [MiB], memory.used [MiB], memory.free [MiB], utilization.gpu [%], power.limit [W], "
        "compute_cap, fan.speed [%]\n"
        "0, NVIDIA H100 80GB HBM3, 81559 MiB, 0 MiB, 81008 MiB, 0 %, 700.00 W, 9.0, [N/A]\n"
        "1, NVIDIA H100 80GB HBM3, 81559 MiB, 70000 MiB, 11008 MiB, 50 %, 700.00 W, 9.0, [N/A]\n",
    )


def test_query_without_header_and_units(host: Host) -> None:
    asked = ("--query-gpu=gpu_bus_id,memory.total,clocks.sm", "--format=csv,noheader,nounits", "-i", "1")
    assert host.smi(*asked) == (0, "00000000:2A:00.0, 81559, 345\n")


def test_query_compute_apps(host: Host) -> None:
    host.occupy(BUSY)
    uuid = host.smi("--query-gpu=uuid", "--format=csv,noheader", "--id=1")[1].strip()
    assert host.smi("--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv") == (
        0,
        f"gpu_uuid, pid, process_name, used_gpu_memory [MiB]\n{uuid}, 4711, /usr/bin/python3, 70000 MiB\n",
    )


def test_list_and_version(host: Host) -> None:
    code, out = host.smi("-L")
    assert code == 0
    assert out.startswith("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-")
    assert host.smi("--version")[1].splitlines()[-1] == "CUDA Version        : 13.0"


def test_a_container_sees_only_what_it_was_given(host: Host) -> None:
    second = host.smi("-L")[1].splitlines()[1]
    (host.root / "dev/nvidia0").unlink()
    assert host.smi("-L") == (0, second.replace("GPU 1:", "GPU 0:") + "\n")


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--query-gpu=cuda", "--format=csv"], 2, 'Field "cuda" is not a valid field to query.'),
        (["--query-gpu=name"], 2, "Invalid combination of input arguments."),
        (["--nonsense"], 2, "Option --nonsense is not recognized."),
        (["-i", "7"], 6, "No devices were found"),
    ],
)
def test_errors_have_the_real_exit_codes(host: Host, argv: list[str], code: int, text: str) -> None:
    found, out = host.smi(*argv)
    assert found == code
    assert text in out


def test_no_driver(host: Host) -> None:
    (host.root / stand_in.GPUS_PATH.lstrip("/")).unlink()
    code, out = host.smi()
    assert code == 9
    assert "couldn't communicate with the NVIDIA driver" in out


def test_everything_as_xml(host: Host) -> None:
    host.occupy({**BUSY, "0": {"log": {"ecc_errors/volatile/dram_uncorrectable": "3", "temperature/gpu_temp": "ERR!"}}})
    code, out = host.smi("-q", "-x")
    assert code == 0
    log = ElementTree.fromstring(out.partition("<!DOCTYPE")[2].partition("\n")[2])  # noqa: S314 (our own)
    first, second = log.findall("gpu")
    assert (log.findtext("driver_version"), log.findtext("attached_gpus")) == ("580.95.05", "2")
    assert (first.get("id"), first.findtext("product_name")) == ("00000000:18:00.0", "NVIDIA H100 80GB HBM3")
    assert (first.findtext("ecc_errors/volatile/dram_uncorrectable"), first.findtext("temperature/gpu_temp")) == (
        "3",
        "ERR!",
    )
    assert second.findtext("processes/process_info/used_memory") == "70000 MiB"
    assert second.findtext("fb_memory_usage/used") == "70000 MiB"
    assert host.smi("-q", "-x", "-i", "1")[1].count("<gpu id=") == 1


def test_an_element_that_is_none_is_refused(host: Host) -> None:
    host.occupy({"0": {"log": {"ecc/no": "3"}}})
    code, out = host.smi("-q", "-x")
    assert (code, "ecc/no: no such element" in out) == (1, True)


def test_links(host: Host) -> None:
    host.occupy({"1": {"links_down": [3]}})
    assert host.smi("topo", "-m")[1].splitlines()[1].split()[:3] == ["GPU0", "X", "NV18"]
    lines = host.smi("nvlink", "--status")[1].splitlines()
    assert lines[1] == "\t Link 0: 26.562 GB/s"
    assert [line for line in lines if "inactive" in line] == ["\t Link 3: <inactive>"]
    assert len(lines) == 2 + 2 * 18
