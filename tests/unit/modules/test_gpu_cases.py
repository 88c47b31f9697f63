"""What nvidia-smi printed on real machines, each case with its source, read and judged."""

from types import ModuleType

import pytest

from .conftest import Load
from .gpu_host import bad, by_check, case, facts


@pytest.fixture
def cards(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check_cards")


@pytest.fixture
def check(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check")


WELL = {
    "h100": ("2 x NVIDIA H100 80GB HBM3 (81559 MiB)", "driver 580.95.05, CUDA 13.0, open kernel modules", []),
    "h200": ("1 x NVIDIA H200 (143771 MiB)", "driver 550.90.12, CUDA 12.4, open kernel modules", []),
    # A slot of eight lanes is worth a word, the generation of an idle card is not.
    "l4": ("1 x NVIDIA L4 (23034 MiB)", "driver 550.90.07, CUDA 12.4, open kernel modules", [("pcie", "warning")]),
    # Eight lanes too, but what a virtual machine shows of a slot is none.
    "t4": (
        "1 x Tesla T4 (15360 MiB)",
        "driver 550.54.14, CUDA 12.4, open kernel modules",
        [("persistence", "warning")],
    ),
    "a100-mig": (
        "1 x NVIDIA A100-SXM4-40GB (MIG: 2 x 19968 MiB)",
        "driver 510.47.03, CUDA 11.6, open kernel modules",
        [("persistence", "warning")],
    ),
    "rtx-pro-6000": (
        "1 x NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition (97887 MiB)",
        "driver 590.44.01, CUDA 13.1, open kernel modules",
        [],
    ),
    "gb10": (
        "1 x NVIDIA GB10 (no memory of its own: it shares the host's 122 GiB)",
        "driver 580.126.09, CUDA 13.0, open kernel modules",
        [("other_programs", "warning")],
    ),
    "vgpu": (
        "1 x NVIDIA L40S-2Q (2048 MiB)",
        "driver 580.105.08, CUDA 13.0, open kernel modules",
        [("vgpu_license", "warning")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WELL)
def test_a_recorded_machine_is_what_it_is(cards: ModuleType, check: ModuleType, name: str) -> None:
    gpus, driver, worries = WELL[name]
    findings = check.findings_of(facts(case(cards, name)))
    said = by_check(findings)
    assert said["gpus"][0]["found"] == gpus
    assert said["driver"][0]["found"] == driver
    assert bad(findings) == worries
    assert all(one["remedy"] for one in findings if one["level"] != "ok")


def test_an_idle_slot_of_eight_lanes(cards: ModuleType, check: ModuleType) -> None:
    [finding] = by_check(check.findings_of(facts(case(cards, "l4"))))["pcie"]
    assert finding["found"] == "GPU 0 (0000:01:00.0): 8 of 16 PCIe lanes"


def test_a_virtual_machines_lanes_are_no_fault(cards: ModuleType, check: ModuleType) -> None:
    [finding] = by_check(check.findings_of(facts(case(cards, "t4"))))["pcie"]
    assert finding["level"] == "ok"
    assert "8 lanes of 16 (as the virtual machine shows it)" in finding["found"]


def test_the_generation_counts_under_load(cards: ModuleType, check: ModuleType) -> None:
    busy = {
        "<gpu_util>0 %": "<gpu_util>97 %",
        "<performance_state>P8": "<performance_state>P0",
        "<current_link_width>8x": "<current_link_width>16x",
    }
    [finding] = by_check(check.findings_of(facts(case(cards, "l4", busy))))["pcie"]
    assert (finding["level"], finding["found"]) == (
        "warning",
        "GPU 0 (0000:01:00.0): PCIe generation 1 of 4 under load",
    )


def test_what_is_not_available_is_none(cards: ModuleType) -> None:
    [gpu] = case(cards, "gb10")["gpus"]
    nothing = (
        "memory_total",
        "memory_used",
        "ecc",
        "ecc_volatile",
        "remapped",
        "retired",
        "mig",
        "power_limit",
        "reset",
    )
    assert {name: gpu[name] for name in nothing} == dict.fromkeys(nothing)
    assert gpu["unreadable"] == []
    assert gpu["bus_id"] == "000f:01:00.0"
    assert [(one["pid"], one["type"], one["memory"]) for one in gpu["processes"]] == [
        (114687, "C", 19135),
        (3196, "G", 117),
    ]


def test_partitions(cards: ModuleType) -> None:
    [gpu] = case(cards, "a100-mig")["gpus"]
    assert gpu["mig_devices"] == [{"index": 0, "memory": 19968}, {"index": 1, "memory": 19968}]
    assert (gpu["ecc"], gpu["ecc_volatile"], gpu["ecc_aggregate"], gpu["utilization"]) == ("Enabled", None, 0, None)


def test_both_layouts_are_read(cards: ModuleType) -> None:
    [old], [new] = case(cards, "t4")["gpus"], case(cards, "rtx-pro-6000")["gpus"]
    assert (old["power_limit"], old["retired"]) == (70, {"single": 0, "double": 0, "pending": False})
    assert (new["power_limit"], new["slowed"], new["pcie"]["gen"]) == (300, {}, 1)
    assert new["remapped"] == {"corrected": 0, "uncorrected": 0, "pending": False, "failed": False}


@pytest.mark.parametrize(
    "text", ["No devices were found", "", "<nvidia_smi_log><gpu>", "<nvidia_smi_log></nvidia_smi_log>"]
)
def test_what_is_no_answer_is_said_to_be_none(cards: ModuleType, text: str) -> None:
    with pytest.raises(cards.SmiError):
        cards.parsed(text)
