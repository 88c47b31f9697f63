"""How a host is asked: nvidia-smi that fails in its ways, the PCI bus in /sys, the kernel's log, links, processes."""

import time
from pathlib import Path
from types import ModuleType

import pytest

from .conftest import Load
from .gpu_host import CASES

LOST = "Unable to determine the device handle for GPU0000:17:00.0: Unknown Error"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.105"


@pytest.fixture
def smi(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check_smi")


def tool(tmp_path: Path, script: str) -> str:
    path = tmp_path / "nvidia-smi"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return str(path)


def test_a_machine_that_is_well(smi: ModuleType, tmp_path: Path) -> None:
    found = smi.seen(tool(tmp_path, f"cat {CASES}/h100.xml"), 10, ["0000:18:00.0", "0000:2a:00.0"])
    assert (found["driver"], found["cuda"], found["error"], len(found["gpus"])) == ("580.95.05", "13.0", None, 2)


# What nvidia-smi says where it says nothing of GPUs, with its exit codes.
BROKEN = {
    "no devices": ("echo 'No devices were found'; exit 6", "No devices were found"),  # 6: nothing found
    "mismatch": (f"echo '{MISMATCH}'; exit 18", " ".join(MISMATCH.split())),  # mozilla/translations#1167
    "silent": ("exit 1", "nvidia-smi ended with 1 and said nothing"),
    "not xml": ("echo 'a table'", "nvidia-smi -q -x prints no XML: a table"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_tool_that_fails(smi: ModuleType, tmp_path: Path, name: str) -> None:
    script, error = BROKEN[name]
    found = smi.seen(tool(tmp_path, script), 10, [])
    assert (found["gpus"], found["error"]) == ([], error)


def test_a_tool_that_hangs(smi: ModuleType, tmp_path: Path) -> None:
    begun = time.monotonic()
    found = smi.seen(tool(tmp_path, f"echo x >> {tmp_path}/asked; exec sleep 60"), 0.3, [])
    assert (tmp_path / "asked").read_text() == "x\n"
    assert found["error"] == "nvidia-smi did not answer within 0.3 s"
    assert time.monotonic() - begun < 5


def test_one_lost_card_hides_the_others_no_more(smi: ModuleType, tmp_path: Path) -> None:
    """The tool fails for all of them; asked for the rest by name it answers."""
    script = f"[ \"$4\" = 0000:18:00.0,0000:2a:00.0 ] && exec cat {CASES}/h100.xml; echo '{LOST}'; exit 255\n"
    found = smi.seen(tool(tmp_path, script), 10, ["0000:17:00.0", "0000:18:00.0", "0000:2a:00.0"])
    assert (len(found["gpus"]), found["lost"], found["driver"]) == (2, ["0000:17:00.0"], "580.95.05")
    assert "Unable to determine" in found["error"]
    assert [gpu["index"] for gpu in found["gpus"]] == [1, 2]


@pytest.mark.parametrize(
    "spelling", ["GPU 0000:2A:00.0: GPU is lost.  Reboot the system to recover this GPU", "GPU0000:2A:00.0: X"]
)
def test_a_lost_card_is_named_whatever_the_spelling(smi: ModuleType, tmp_path: Path, spelling: str) -> None:
    said = f"Unable to determine the device handle for {spelling}"
    found = smi.seen(tool(tmp_path, f"echo '{said}'; exit 15"), 10, ["0000:2a:00.0"])
    assert (found["lost"], found["gpus"]) == (["0000:2a:00.0"], [])


def test_csv_where_there_is_no_xml(smi: ModuleType, tmp_path: Path) -> None:
    row = "0, GPU-a, NVIDIA GB10, 0000000F:01:00.0, 580.142, [N/A], [N/A], [N/A]"
    script = f"case \"$1\" in --query-gpu=*) echo '{row}';; *) echo '<nvidia_smi_log><gpu'; esac\n"
    found = smi.seen(tool(tmp_path, script), 10, [])
    [gpu] = found["gpus"]
    assert (found["driver"], found["error"]) == ("580.142", None)
    assert (gpu["name"], gpu["bus_id"], gpu["memory_total"]) == ("NVIDIA GB10", "000f:01:00.0", None)


def device(
    root: Path, address: str, driver: str | None = "nvidia", head: bytes = b"\xde\x10\x30\x23", **files: str
) -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    known = {"vendor": "0x10de", "device": "0x2330", "class": "0x030200", "current_link_width": "16", **files}
    for name, text in known.items():
        (folder / name).write_text(text + "\n")
    (folder / "config").write_bytes(head + bytes(60))
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)


def test_the_bus(load: Load, tmp_path: Path) -> None:
    bus = load("gpu_check/gpu_check_bus")
    assert bus.cards(tmp_path) == []
    device(tmp_path, "0000:18:00.0", max_link_width="16")
    device(tmp_path, "0000:2a:00.0", head=b"\xff\xff\xff\xff", max_link_width="255")
    device(tmp_path, "0000:3a:00.0", driver="vfio-pci")
    device(tmp_path, "0000:3b:00.0", driver=None, **{"class": "0x030000"})
    device(tmp_path, "0000:18:00.1", **{"class": "0x040300"})
    device(tmp_path, "0000:00:02.0", driver="i915", vendor="0x8086", **{"class": "0x030000"})
    device(tmp_path, "0000:c1:00.0", driver=None, **{"class": "0x068000"})
    device(tmp_path, "0000:5d:00.1")
    (tmp_path / "sys/bus/pci/devices/0000:5d:00.1/physfn").mkdir()
    assert [(one["address"], one["driver"], one["answers"], one["max_width"]) for one in bus.cards(tmp_path)] == [
        ("0000:18:00.0", "nvidia", True, 16),
        ("0000:2a:00.0", "nvidia", False, None),
        ("0000:3b:00.0", None, True, None),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("00000000:18:00.0", "0000:18:00.0"),
        ("0000000F:01:00.0", "000f:01:00.0"),
        ("0000:BA:00", "0000:ba:00.0"),
        ("N/A", None),
    ],
)
def test_bus_ids_are_spelled_alike(load: Load, text: str, found: str | None) -> None:
    assert load("gpu_check/gpu_check_bus").bus_id(text) == found


LOG = """\
1764000000.100000 h kernel: NVRM: Xid (PCI:0000:18:00): 31, pid=77, name=python3, Ch 00000008, intr 00000000. MMU Fault
1764000100.000000 h kernel: NVRM: Xid (PCI:0000:dc:00): 45, pid=1818990, name=python3, Ch 00000001
1764000200.000000 h kernel: NVRM: Xid (PCI:0000:18:00): 31, pid=78, name=python3, Ch 00000009
1764000300.000000 h kernel: NVRM: Xid (PCI:0000:2a:00): 79, GPU has fallen off the bus.
1764000400.000000 h kernel: nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up
[   12.500000] NVRM: Xid (0000:03:00): 14, Channel 00000001
"""


def test_xids_newest_first(load: Load) -> None:
    part = load("gpu_check/gpu_check_log")
    found = part.xids(LOG.splitlines(), 1_763_999_000.0)
    assert [(one["kind"], one["code"], one["bus_id"], one["count"], one["last"]) for one in found] == [
        ("SXid", 20034, "0000:c1:00.0", 1, 1764000400.0),
        ("Xid", 79, "0000:2a:00.0", 1, 1764000300.0),
        ("Xid", 31, "0000:18:00.0", 2, 1764000200.0),
        ("Xid", 45, "0000:dc:00.0", 1, 1764000100.0),
        ("Xid", 14, "0000:03:00.0", 1, 1763999012.5),
    ]
    assert found[0]["fatal"] is True


def test_the_log_is_read_by_what_there_is(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = load("gpu_check/gpu_check_log")
    monkeypatch.setattr(part, "COMMANDS", (["nowhere-journalctl"], ["nowhere-dmesg"]))
    assert part.lines() is None
    monkeypatch.setattr(part, "COMMANDS", (["true"], ["false"]))
    assert part.lines() == []
    text = "[ 1.0] usb 1-1: new\n[ 2.0] NVRM: loading NVIDIA UNIX\n                NVRM: more\n"
    (tmp_path / "log").write_text(text)
    monkeypatch.setattr(part, "COMMANDS", (["true"], ["cat", str(tmp_path / "log")]))
    assert part.lines() == ["[ 2.0] NVRM: loading NVIDIA UNIX", "                NVRM: more"]
    monkeypatch.setattr(part, "COMMANDS", (["sleep", "60"],))
    monkeypatch.setattr(part, "TIME_LIMIT", 0.2)
    assert part.lines() is None


# NVIDIA/DCGM#149, a DGX A100 with network cards in the matrix, cut to three; on some drivers its head is underlined.
TOPOLOGY = (
    "\x1b[4m        GPU0    GPU1    GPU2    NIC0    NIC1    CPU Affinity    NUMA Affinity   GPU NUMA ID\x1b[0m\n"
    "GPU0     X      NV12    NV12    PXB     SYS     48-63,176-191   3               N/A\n"
    "GPU1    NV12     X      SYS     PXB     SYS     48-63,176-191   3               N/A\n"
    "GPU2    NV12    SYS      X      SYS     PXB     16-31,144-159   1               N/A\n"
    "NIC0    PXB     PXB     SYS      X      SYS\n"
    "\nLegend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n\n"
    "NIC Legend:\n\n  NIC0: mlx5_0\n"
)
# Azure/azhpc-diagnostics#73, and leptonai/gpud#1085 for the last.
NVLINK = """\
GPU 0: NVIDIA A100-PCIE-40GB (UUID: GPU-a)
GPU 3: Tesla V100-SXM2-32GB (UUID: GPU-b)
\t Link 0: 25.781 GB/s
\t Link 1: <inactive>
\t Link 2: 25.781 GB/s
GPU 4: NVIDIA B200 (UUID: GPU-c)
NVML: Unable to retrieve NVLink information as all links are inActive
"""


def test_links(load: Load) -> None:
    matrix = load("module_parts/onprem_llm_gpu_matrix").matrix
    assert matrix(TOPOLOGY) == {"0-1": "NV12", "0-2": "NV12", "1-2": "SYS"}
    assert matrix("") == {}
    part = load("gpu_check/gpu_check_links")
    assert part.link_states(NVLINK) == {"3": {"up": [0, 2], "down": [1]}, "4": {"up": [], "down": []}}


def test_whose_process_it_is(load: Load, tmp_path: Path) -> None:
    part = load("gpu_check/gpu_check_containers")
    ours, theirs = "a" * 64, "b" * 64
    for pid, path in {
        1: f"0::/system.slice/docker-{ours}.scope",
        2: f"5:devices:/docker/{theirs}",
        3: "0::/user.slice",
    }.items():
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/cgroup").write_text(path + "\n")
    containers = [
        {"id": ours, "name": "tiny-0-vllm-1", "labels": {"project": "tiny-0"}},
        {"id": theirs, "name": "jupyter", "labels": {}},
    ]
    assert part.owners([1, 2, 3, 4], containers, tmp_path) == {1: "+tiny-0", 2: "jupyter"}


def test_images_are_known_by_name(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose starts images by id; one that lost its name stays an id, one of others is not asked for."""
    part = load("gpu_check/gpu_check_containers")
    ours = {"onprem-llm.project": "tiny-0"}
    answers = {
        "/info": {"Runtimes": {"runc": {}}, "CDISpecDirs": []},
        "/containers/json?all=1": [
            {"Id": "1", "Names": ["/a"], "Image": "sha256:1", "State": "running", "Labels": ours},
            {"Id": "2", "Names": ["/b"], "Image": "sha256:2", "State": "exited", "Labels": ours},
            {"Id": "3", "Names": ["/c"], "Image": "sha256:3", "Labels": None},
            {"Id": "4", "Names": None, "Image": "web:1", "Labels": ours},
        ],
        "/images/sha256:1/json": {"RepoTags": ["vllm:1"], "RepoDigests": []},
        "/images/sha256:2/json": {"RepoTags": [], "RepoDigests": None},
    }
    monkeypatch.setattr(part, "ask", answers.__getitem__)
    found = part.access()
    assert [one["image_name"] for one in found["containers"]] == ["vllm:1", "sha256:2", "sha256:3", "web:1"]
    assert (found["engine"], found["cdi_on"], found["containers"][1]["running"]) == (True, False, False)


def test_the_whole_of_a_host(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's own look: what is asked beside each other arrives, what fails is an answer too."""
    check = load("gpu_check/gpu_check")
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "proc/uptime").write_text("20000000000.5 1.0\n")
    device(root, "0000:18:00.0", max_link_width="16")
    device(root, "0000:2a:00.0", max_link_width="16")
    script = (
        f"""case "$1" in -q) cat {CASES}/h100.xml;; topo) printf 'GPU0 GPU1\\nGPU0 X NV18\\n';; *) exit 3;; esac\n"""
    )
    monkeypatch.setattr(check.smi_part, "tool", lambda: tool(tmp_path, script))
    monkeypatch.setattr(check.log_part, "lines", LOG.splitlines)
    monkeypatch.setattr(check.containers_part, "access", lambda: {"cdi": ["nvidia.com/gpu=0"], "containers": []})
    facts = check.look(10.0, root)
    assert (len(facts["gpus"]), facts["links"]) == (2, {"pairs": {"0-1": "NV18"}, "states": {}})
    assert [one["code"] for one in facts["xids"]][:2] == [20034, 79]
    sent = check.told(facts)
    assert "log" not in sent
    assert sent["bus"][0]["address"] == "0000:18:00.0"
    assert {one["check"] for one in check.findings_of(facts)} >= {"gpus", "driver", "xid", "nvlink", "gpu_access"}
