"""What is read off a host, on a root folder of our own."""

import pytest
from tests.unit.nvidia_driver.made_hosts import H100, NEWEST, RUNNING

PROPRIETARY = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
"""
OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  Release Build  (dvs-builder@U16-A24-9-2)  Thu Oct 10
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""


@pytest.fixture
def root(driver, tmp_path, monkeypatch):
    """An empty host; commands answer what `said` maps their first words to."""
    monkeypatch.setattr(driver.look, "ROOT", tmp_path)
    said = {"uname -r": RUNNING, "uname -m": "x86_64"}
    monkeypatch.setattr(driver.look, "run", lambda argv, *_: (0, next(iter(_answers(said, argv)), "")))
    return tmp_path, said


def _answers(said, argv):
    return [text for words, text in said.items() if " ".join(argv).startswith(words) or argv[-1].endswith(words)]


def put(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def card(root, address, device, kind="0x030200", vendor="0x10de", driver=None):
    folder = f"sys/bus/pci/devices/{address}"
    for name, text in (("vendor", vendor), ("class", kind), ("device", f"0x{device:04x}")):
        put(root, f"{folder}/{name}", text + "\n")
    if driver:
        (root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
        (root / folder / "driver").symlink_to(root / f"sys/bus/pci/drivers/{driver}")


def test_gpus_and_switches_come_from_the_bus(driver, root):
    folder, _ = root
    card(folder, "0000:1b:00.0", H100)
    card(folder, "0000:3b:00.0", H100, kind="0x030000", driver="nouveau")
    card(folder, "0000:3b:00.1", 0x228E, kind="0x040300")  # its sound
    card(folder, "0000:05:00.0", 0x22A3, kind="0x068000")
    card(folder, "0000:02:00.0", 0x2000, vendor="0x1a03")  # the board's own display
    found = driver.look.facts()
    assert found["gpus"] == [
        {"address": "0000:1b:00.0", "device": 0x2330, "driver": None},
        {"address": "0000:3b:00.0", "device": 0x2330, "driver": "nouveau"},
    ]
    assert found["switches"] == 1


def test_a_bare_machine(driver, root):
    found = driver.look.facts()
    assert found["gpus"] == []
    assert (found["running"], found["newest"], found["headers"], found["built"]) == (RUNNING, RUNNING, [], {})
    assert (found["loaded"], found["nouveau"], found["secure_boot"]) == (None, False, False)


def test_the_next_kernel_is_the_highest_that_is_installed(driver, root):
    folder, _ = root
    for name in (RUNNING, NEWEST, "6.12.9+deb13-amd64"):
        put(folder, f"boot/vmlinuz-{name}", "")
    put(folder, "boot/vmlinuz-0-rescue-abc", "")
    put(folder, "boot/vmlinuz-6.99.0-amd64.old", "")
    assert driver.look.facts()["newest"] == NEWEST


def test_headers_count_where_they_lead_somewhere(driver, root):
    folder, _ = root
    put(folder, f"usr/src/linux-headers-{RUNNING}/Makefile", "")
    (folder / f"lib/modules/{RUNNING}").mkdir(parents=True)
    (folder / f"lib/modules/{RUNNING}/build").symlink_to(folder / f"usr/src/linux-headers-{RUNNING}")
    put(folder, f"lib/modules/{NEWEST}/modules.builtin", "")
    (folder / f"lib/modules/{NEWEST}/build").symlink_to(folder / "usr/src/gone")
    assert driver.look.facts()["headers"] == [RUNNING]


@pytest.mark.parametrize(
    "name",
    [
        "updates/dkms/nvidia-current.ko.xz", "updates/dkms/nvidia-current-open.ko.xz", "updates/dkms/nvidia.ko.zst",
        "extra/nvidia.ko.xz", "kernel/drivers/video/nvidia.ko", "kernel/nvidia-580srv-open/nvidia.ko",
    ],
)  # fmt: skip
def test_modules_wherever_they_are(driver, root, name):
    folder, said = root
    put(folder, f"lib/modules/{RUNNING}/{name}", "")
    said["modinfo --field version"] = "580.95.05"
    said["modinfo --field license"] = "Dual MIT/GPL"
    expected = {"version": "580.95.05", "open": True, "path": f"/lib/modules/{RUNNING}/{name}"}
    assert driver.look.facts()["built"] == {RUNNING: expected}


def test_what_is_no_driver(driver, root):
    folder, said = root
    for name in ("kernel/drivers/platform/x86/nvidia-wmi-ec-backlight.ko.xz", "updates/dkms/nvidia-current-uvm.ko.xz"):
        put(folder, f"lib/modules/{RUNNING}/{name}", "")
    said["modinfo --field version"] = "580.95.05"
    assert driver.look.facts()["built"] == {}
    put(folder, f"lib/modules/{RUNNING}/updates/dkms/nvidia.ko", "")
    said["modinfo --field version"] = "modinfo: ERROR: could not get modinfo"
    assert driver.look.facts()["built"] == {}


def test_the_driver_that_runs(driver, root):
    assert driver.look.loaded(PROPRIETARY) == {"version": "535.183.01", "open": False}
    assert driver.look.loaded(OPEN) == {"version": "565.57.01", "open": True}
    assert driver.look.loaded("") is None


@pytest.mark.parametrize(("value", "expected"), [(b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False), (None, False)])
def test_secure_boot(driver, root, value, expected):
    folder, _ = root
    if value is not None:
        put(folder, driver.look.SECURE_BOOT, "").write_bytes(value)
    assert driver.look.secure_boot() is expected
