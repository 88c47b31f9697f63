"""A driver that is not there, does not load or does not show every card: the reason in one line, and the remedy."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load
from .gpu_host import COULD_NOT, KERNEL, LOADED, NOTHING_LOADED, bad, by_check, card, case, facts

CARD = card("0000:01:00.0", driver=None)


@pytest.fixture
def cards(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check_cards")


@pytest.fixture
def check(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check")


def reason(check: ModuleType, **changes: Any) -> Mapping[str, str]:
    """Return what is said of the driver of a host that shows no GPU."""
    known = {"error": COULD_NOT, "bus": [CARD], "state": NOTHING_LOADED, **changes}
    [one] = by_check(check.findings_of(facts(None, **known)))["driver"]
    assert "\n" not in one["found"]
    assert one["remedy"]
    found: Mapping[str, str] = one
    return found


def test_none_at_all_is_fine(check: ModuleType) -> None:
    made = facts(None, bus=[], state={**NOTHING_LOADED, "dkms": [], "built": False})
    made["driver"]["tool"] = False
    [one] = check.findings_of(made)
    assert (one["check"], one["level"]) == ("gpus", "ok")
    assert "CPU" in one["found"]


def test_cards_without_a_driver(check: ModuleType) -> None:
    made = facts(None, bus=[CARD] * 8, state={**NOTHING_LOADED, "dkms": [], "built": False})
    made["driver"]["tool"] = False
    one = by_check(check.findings_of(made))["driver"][0]
    assert (one["level"], one["found"]) == ("warning", "8 NVIDIA GPU(s) on the PCI bus, no nvidia-smi")


@pytest.mark.parametrize(
    "line",
    [
        "1764000000.1 h kernel: Loading of module with unavailable key is rejected",
        "1764000000.1 h kernel: Loading of unsigned module is rejected",
        "1764000000.1 h kernel: Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7",
    ],
)
def test_secure_boot_rejected_the_key(load: Load, check: ModuleType, line: str) -> None:
    assert load("gpu_check/gpu_check_log").OF_GPUS.search(line)
    one = reason(check, log=[line], state={**NOTHING_LOADED, "secure_boot": True})
    assert one["level"] == "error"
    assert one["found"].startswith("Secure Boot rejected the driver's module")
    assert "mokutil --import" in one["remedy"]


def test_secure_boot_without_a_word_in_the_log(check: ModuleType) -> None:
    one = reason(check, state={**NOTHING_LOADED, "secure_boot": True})
    assert "most likely not signed" in one["found"]


def test_nouveau_holds_the_card(check: ModuleType) -> None:
    one = reason(check, bus=[{**CARD, "driver": "nouveau"}], state={**NOTHING_LOADED, "others": ["nouveau"]})
    assert one["found"].startswith("nouveau holds the GPU")
    assert "blacklist nouveau" in one["remedy"]
    assert "reboot" in one["remedy"]


def test_no_headers(check: ModuleType) -> None:
    one = reason(check, state={**NOTHING_LOADED, "built": False, "headers": False})
    assert one["found"] == f"the driver is not built for kernel {KERNEL}: its headers are not installed"
    assert f"linux-headers-{KERNEL}" in one["remedy"]


def test_dkms_failed(check: ModuleType) -> None:
    tree = {"name": "nvidia", "version": "550.163.01", "built": False, "error": "nv.c:12: error: implicit declaration"}
    one = reason(check, state={**NOTHING_LOADED, "built": False, "dkms": [tree]})
    assert one["found"] == (
        f"DKMS could not build nvidia 550.163.01 for kernel {KERNEL}: nv.c:12: error: implicit declaration"
    )
    assert "/var/lib/dkms/nvidia/550.163.01/build/make.log" in one["remedy"]


def test_not_built_for_this_kernel(check: ModuleType) -> None:
    assert f"no module for kernel {KERNEL}" in reason(check, state={**NOTHING_LOADED, "built": False})["found"]


def test_open_modules_and_an_old_card(check: ModuleType) -> None:
    # NVIDIA/open-gpu-kernel-modules says it so, in three lines.
    log = [
        "1764000000.1 h kernel: NVRM: The NVIDIA GPU 0000:17:00.0 (PCI ID: 10de:1bb3) installed in this system",
        "                       NVRM: is not supported by open nvidia.ko because it does not include the",
        "                       NVRM: required GPU System Processor (GSP).",
    ]
    one = reason(check, log=log, state=LOADED)
    assert "do not support this GPU" in one["found"]
    assert "proprietary" in one["remedy"]


def test_proprietary_modules_and_a_new_card(check: ModuleType) -> None:
    log = [
        "1764000000.1 h kernel: NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2c58)",
        "                       NVRM: installed in this system requires use of the NVIDIA open kernel modules.",
        "1764000000.1 h kernel: NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)",
    ]
    one = reason(check, error="No devices were found", log=log, state=LOADED)
    assert "wants the open kernel modules" in one["found"]


def test_updated_while_it_ran(check: ModuleType) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch NVML library version: 580.105"
    one = reason(check, error=said, state=LOADED)
    assert one["found"] == "the driver was updated while it ran: loaded is 580.95.05, its libraries are 580.105"
    assert "reboot" in one["remedy"]


def test_loaded_and_no_tool(check: ModuleType) -> None:
    made = facts(None, bus=[CARD], state=LOADED)
    made["driver"]["tool"] = False
    one = by_check(check.findings_of(made))["driver"][0]
    assert (one["level"], one["found"]) == ("error", "the driver is loaded, and nvidia-smi is not installed")


def test_a_driver_that_hangs(check: ModuleType) -> None:
    assert "the driver hangs" in reason(check, error="nvidia-smi did not answer within 30 s", state=LOADED)["found"]


def test_a_driver_and_no_card(check: ModuleType) -> None:
    one = reason(check, error="No devices were found", bus=[], state=LOADED)
    assert (one["level"], one["found"]) == ("warning", "No devices were found, and there is none on the PCI bus")


def test_without_a_card_on_the_bus_its_words_are_all_there_is(check: ModuleType) -> None:
    one = reason(check, error="Traceback: no such thing", bus=[], state={**NOTHING_LOADED, "built": False, "dkms": []})
    assert (one["level"], one["found"]) == ("warning", "nvidia-smi fails: Traceback: no such thing")


FELL = "1764000000.5 h kernel: NVRM: Xid (PCI:0000:2a:00): 79, GPU has fallen off the bus."


def test_one_of_two_has_fallen_off_the_bus(cards: ModuleType, check: ModuleType) -> None:
    seen = case(cards, "h100")
    gone = seen["gpus"].pop()
    bus = [card("0000:18:00.0"), card(gone["bus_id"], answers=False)]
    one = by_check(check.findings_of(facts(seen, bus=bus)))["gpus_seen"][0]
    assert one["level"] == "error"
    assert one["found"] == "1 of 2 GPUs not shown by the driver: 0000:2a:00.0 has fallen off the bus"
    assert "Power the host off" in one["remedy"]


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ([FELL], "has fallen off the bus"),
        (
            # NVIDIA/NVSentinel#155: with no Xid, and over three lines.
            [
                "1764000000.5 h kernel: NVRM: The NVIDIA GPU 0000:2a:00.0",
                "                       NVRM: (PCI ID: 10de:26b5) installed in this system has",
                "                       NVRM: fallen off the bus and is not responding to commands.",
            ],
            "has fallen off the bus",
        ),
        (
            ["NVRM: GPU 0000:18:00.0: fine", "NVRM: GPU 0000:2a:00.0: RmInitAdapter failed! (0x22:0x56:884)"],
            "could not be started by the driver (RmInitAdapter failed)",
        ),
        ([FELL.replace("2a", "18")], "is not shown, and the kernel's log does not say why"),
        ([], "is not shown, and the kernel's log does not say why"),
    ],
)
def test_why_a_card_is_not_shown(cards: ModuleType, check: ModuleType, log: list[str], why: str) -> None:
    seen = case(cards, "h100")
    seen["gpus"].pop()
    bus = [card("0000:18:00.0"), card("0000:2a:00.0")]
    one = by_check(check.findings_of(facts(seen, bus=bus, log=log)))["gpus_seen"][0]
    assert one["found"] == f"1 of 2 GPUs not shown by the driver: 0000:2a:00.0 {why}"


def test_a_card_that_nouveau_holds_beside_one_that_works(cards: ModuleType, check: ModuleType) -> None:
    seen = case(cards, "h100")
    bus = [card("0000:18:00.0"), card("0000:2a:00.0"), card("0000:c1:00.0", driver="nouveau")]
    one = by_check(check.findings_of(facts(seen, bus=bus)))["gpus_seen"][0]
    assert one["found"] == "1 of 3 GPUs not shown by the driver: 0000:c1:00.0 is held by nouveau"
    assert (one["level"], "blacklist" in one["remedy"]) == ("error", True)
    bus[2] = card("0000:c1:00.0", driver="nouveau", **{"class": "0300"})
    assert by_check(check.findings_of(facts(seen, bus=bus)))["gpus_seen"][0]["level"] == "warning"
    bus[1] = {**bus[1], "address": "0000:99:00.0"}
    assert by_check(check.findings_of(facts(seen, bus=bus)))["gpus_seen"][0]["level"] == "error"


def test_all_of_them_shown_is_no_finding(cards: ModuleType, check: ModuleType) -> None:
    assert bad(check.findings_of(facts(case(cards, "h100")))) == []
    # Rehearsal hosts and Jetsons have no PCI device.
    assert bad(check.findings_of(facts(case(cards, "h100"), bus=[]))) == []


def put(root: Path, path: str, text: str = "") -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text.encode("latin-1"))


def test_what_is_read_of_a_driver(load: Load, tmp_path: Path) -> None:
    part = load("gpu_check/gpu_check_driver")
    nothing = part.state(tmp_path, KERNEL)
    assert (nothing["loaded"], nothing["built"], nothing["headers"], nothing["secure_boot"]) == (
        None,
        False,
        False,
        None,
    )
    put(
        tmp_path,
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  610.43.02  Release Build  (dvs-builder@U22-I3)\n",
    )
    put(
        tmp_path,
        f"lib/modules/{KERNEL}/modules.dep",
        "kernel/a.ko:\nupdates/dkms/nvidia-current.ko.xz: kernel/drm.ko\n",
    )
    put(tmp_path, f"lib/modules/{KERNEL}/build/Makefile")
    put(tmp_path, part.SECURE_BOOT, "\x06\0\0\0\x01")
    put(tmp_path, "sys/module/nouveau/refcnt", "0")
    put(
        tmp_path,
        "var/lib/dkms/nvidia/610.43.02/build/make.log",
        "CC nv.o\nnv.c:1: error: too few arguments\nmake: *** [x]\n",
    )
    put(tmp_path, "var/lib/dkms/zfs/2.1.1/build/make.log", "error: no\n")
    found = part.state(tmp_path, KERNEL)
    assert (found["loaded"], found["open"], found["built"], found["headers"]) == ("610.43.02", True, True, True)
    assert (found["secure_boot"], found["others"]) == (True, ["nouveau"])
    assert found["dkms"] == [
        {"name": "nvidia", "version": "610.43.02", "built": False, "error": "nv.c:1: error: too few arguments"}
    ]
    put(tmp_path, f"var/lib/dkms/nvidia/610.43.02/{KERNEL}/x86_64/module/nvidia.ko.xz")
    assert part.state(tmp_path, KERNEL)["dkms"][0]["error"] is None
    put(tmp_path, part.SECURE_BOOT, "\x06\0\0\0\0")
    assert part.state(tmp_path, KERNEL)["secure_boot"] is False


def test_the_modules_of_another_kernel_do_not_count(load: Load, tmp_path: Path) -> None:
    put(tmp_path, "lib/modules/6.1.0-1/modules.dep", "updates/dkms/nvidia.ko:\n")
    put(tmp_path, f"lib/modules/{KERNEL}/modules.dep", "kernel/drivers/net/nvidia_net.ko:\nkernel/nvidiafb.ko:\n")
    assert load("gpu_check/gpu_check_driver").state(tmp_path, KERNEL)["built"] is False
