"""Why a driver does not load: what modprobe and the kernel say, in one line with its remedy."""

import pytest

# As they stand in reports on the driver's issue tracker.
GSP = """\
NVRM: The NVIDIA GPU 0000:05:00.0 (PCI ID: 10de:1d81)
NVRM: installed in this system is not supported by open nvidia.ko
NVRM: because it does not include the required GPU System Processor (GSP).
"""
OPEN_ONLY = """\
NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2c58)
NVRM: installed in this system requires use of the NVIDIA open kernel modules.
NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)
"""
LOST = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus."


@pytest.mark.parametrize(
    ("said", "log", "found", "remedy"),
    [
        ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", "", "Secure Boot", "mokutil"),
        ("modprobe: ERROR: could not insert 'nvidia': Required key not available", "", "Secure Boot", "mokutil"),
        ("modprobe: ERROR: could not insert 'nvidia': No such device", GSP, "older than Turing", "proprietary"),
        ("", OPEN_ONLY, "the proprietary kernel modules", "to open"),
        ("modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.1", "", "no NVIDIA module", "headers"),
        ("modprobe: ERROR: could not insert 'nvidia': Exec format error", "", "another kernel", "dkms autoinstall"),
        ("", "NVRM: NVIDIA's driver... rivafb, nvidiafb, or nouveau", "nouveau", "Reboot"),
        ("", LOST, "does not answer", "Power the host off"),
    ],
)
def test_reasons(driver, said, log, found, remedy):
    reason = driver.reasons.reason(said, log)
    assert found in reason.found
    assert remedy in reason.remedy


def test_nothing_known(driver):
    assert driver.reasons.reason("modprobe: ERROR: something new", "usb 1-1: new device") is None


def test_an_error_becomes_a_finding(driver):
    made = driver.plan.failed(
        "found driver 550, expected one for Blackwell: branch 570 or newer. Name a mirror. Run it."
    )
    assert made["level"] == "error"
    assert (made["found"], made["expected"]) == ("driver 550", "one for Blackwell: branch 570 or newer")
    assert made["remedy"] == "Name a mirror. Run it."
