"""Which driver serves which GPUs, alone and together."""

import pytest
from tests.unit.nvidia_driver.made_hosts import A100, B200, GB10, GH200, H100, L4, M60, P40, RTX5090, T4, V100

# Names of the PCI ID Repository.
KNOWN = {
    0x13F2: "maxwell", 0x1431: "maxwell", 0x15F7: "pascal", 0x1B38: "pascal", 0x1DB4: "volta", 0x1DB6: "volta",
    0x1E37: "turing", 0x1EB8: "turing", 0x2184: "turing", 0x20B5: "ampere", 0x20F1: "ampere", 0x2204: "ampere",
    0x2236: "ampere", 0x25B6: "ampere", 0x2321: "hopper", 0x2331: "hopper", 0x2335: "hopper", 0x2342: "grace_hopper",
    0x2684: "ada", 0x26B9: "ada", 0x27B8: "ada", 0x2901: "blackwell", 0x2941: "blackwell", 0x2BB5: "blackwell",
    0x2C02: "blackwell", 0x2F04: "blackwell", 0x2E12: "blackwell_580", 0x3182: "blackwell_580", 0x31C2: "blackwell_580",
    0x1024: "older", 0x102D: "older", 0x3000: "newer",
}  # fmt: skip


@pytest.mark.parametrize("device", KNOWN, ids=hex)
def test_generations(driver, device):
    assert driver.chips.generation(device) == KNOWN[device]


def test_the_ranges_do_not_overlap(driver):
    edges = [edge for first, last, _ in driver.chips.RANGES for edge in (first, last)]
    assert edges == sorted(edges)
    assert len(set(edges)) == len(edges)


def kinds(driver, host, devices, branches, wished="auto"):
    asked = driver.needs.asked(host(*devices)["gpus"])
    return [asked.kind(branch, wished) for branch in branches]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([M60], ["proprietary", "proprietary", "proprietary", None, None]),
        ([P40], ["proprietary", "proprietary", "proprietary", None, None]),
        ([V100], ["proprietary", "proprietary", "proprietary", None, None]),
        # Before 545 the open modules know data centre cards alone; after 615 there are no others.
        ([T4], ["proprietary", "open", "open", "open", "open"]),
        ([A100], ["proprietary", "open", "open", "open", "open"]),
        ([L4], ["proprietary", "open", "open", "open", "open"]),
        ([H100, H100], ["proprietary", "open", "open", "open", "open"]),
        ([GH200], ["open", "open", "open", "open", "open"]),
        ([B200], [None, None, "open", "open", "open"]),
        ([RTX5090], [None, None, "open", "open", "open"]),
        ([GB10], [None, None, "open", "open", "open"]),
        ([V100, H100], ["proprietary", "proprietary", "proprietary", None, None]),
        ([A100, B200], [None, None, "open", "open", "open"]),
    ],
    ids=str,
)
def test_modules_by_branch(driver, host, devices, expected):
    assert kinds(driver, host, devices, [535, 550, 580, 590, 620]) == expected


def test_the_generations_first_branches(driver, host):
    assert kinds(driver, host, [B200], [565, 570]) == [None, "open"]
    assert kinds(driver, host, [GB10], [570, 575, 580]) == [None, None, "open"]


def test_a_wish_is_kept_where_it_can_be(driver, host):
    assert kinds(driver, host, [H100], [535, 580], "proprietary") == ["proprietary", "proprietary"]
    assert kinds(driver, host, [H100], [535, 580], "open") == ["open", "open"]
    assert kinds(driver, host, [H100], [620], "proprietary") == [None]
    assert kinds(driver, host, [V100], [580], "open") == [None]
    assert kinds(driver, host, [B200], [580], "proprietary") == [None]


def test_gpus_that_no_driver_serves_together(driver, host):
    with pytest.raises(driver.needs.DriverError) as refused:
        driver.needs.asked(host(V100, B200)["gpus"])
    assert str(refused.value).startswith("found Volta and Blackwell in one host")
    assert "Move one of them" in str(refused.value)


def test_who_needs_a_fabric_manager(driver, host):
    def of(*devices, switches=0):
        found = driver.needs.asked(host(*devices)["gpus"], switches)
        return found.fabric, found.nvlink5

    assert of(H100) == (False, False)
    assert of(H100, switches=4) == (True, False)
    assert of(B200) == (True, True)  # its NVSwitches are no PCI devices of NVIDIA's
