"""The packages on Ubuntu and the RHEL family, by GPUs and by what the sources have."""

import pytest
from tests.unit.nvidia_driver.made_hosts import A100, B200, GB10, H100, T4, V100
from tests.unit.nvidia_driver.test_plan import planned, words

KERNEL = "6.8.0-85-generic"
UBUNTU = {"os": "ubuntu", "version": "24.04", "codename": "noble", "running": KERNEL, "newest": KERNEL}
ROCKY = {"os": "rocky", "version": "9.6", "codename": "", "running": "5.14.0-570.el9.x86_64"}
ROCKY["newest"] = ROCKY["running"]


def archive(*branches, signed=True):
    offered = {f"linux-headers-{KERNEL}": "6.8.0-85.85"}
    for branch in branches:
        for kind in ("", "-open"):
            version = f"{branch}.95.05-0ubuntu0.24.04.1"
            names = [f"nvidia-driver-{branch}-server{kind}", f"nvidia-dkms-{branch}-server{kind}"]
            names += [f"linux-modules-nvidia-{branch}-server{kind}-{KERNEL}"] if signed else []
            offered.update(dict.fromkeys(names, version))
        offered[f"nvidia-fabricmanager-{branch}"] = f"{branch}.95.05-0ubuntu0.24.04.1"
    return offered


def test_ubuntu_takes_signed_modules_of_the_long_lived_branch(driver, host, state):
    choice, plan = planned(driver, host(H100, **UBUNTU), state, archive(535, 570, 580, 595))
    assert (choice.branch, choice.kind) == (580, "open")
    assert words(driver, plan)[:2] == [
        f"install linux-modules-nvidia-580-server-open-{KERNEL}",
        "install nvidia-driver-580-server-open",
    ]


def test_signed_modules_load_under_secure_boot_and_others_wait_for_their_key(driver, host, state):
    facts = host(H100, secure_boot=True, **UBUNTU)
    _, plan = planned(driver, facts, state, archive(580))
    assert words(driver, plan)[-1] == "load the driver 580.95.05"
    assert [one["check"] for one in plan.findings] == ["nvidia_driver"]
    _, plan = planned(driver, facts, state, archive(580), build="dkms")
    assert "load the driver 580.95.05" not in words(driver, plan)
    assert [one["check"] for one in plan.findings] == ["nvidia_driver", "secure_boot"]


def test_ubuntu_builds_where_no_signed_modules_are(driver, host, state):
    _, plan = planned(driver, host(T4, **UBUNTU), state, archive(580, signed=False))
    assert words(driver, plan)[:3] == [
        f"install linux-headers-{KERNEL}",
        "install nvidia-dkms-580-server-open",
        "install nvidia-driver-580-server-open",
    ]
    with pytest.raises(driver.needs.DriverError, match=r"found no linux-modules-nvidia-580-server-open-6\.8"):
        planned(driver, host(T4, **UBUNTU), state, archive(580, signed=False), build="precompiled")


@pytest.mark.parametrize(
    ("device", "branches", "expected"),
    [
        (V100, (535, 580, 595), "nvidia-driver-580-server"),
        (V100, (535, 550), "nvidia-driver-550-server"),
        (T4, (535,), "nvidia-driver-535-server"),
        (A100, (550, 570), "nvidia-driver-570-server-open"),
        (B200, (550, 570), "nvidia-driver-570-server-open"),
        (GB10, (570, 580), "nvidia-driver-580-server-open"),
        (GB10, (595,), "nvidia-driver-595-server-open"),
    ],
)
def test_ubuntus_branch_by_generation(driver, host, state, device, branches, expected):
    _, plan = planned(driver, host(device, **UBUNTU), state, archive(*branches))
    assert f"install {expected}" in words(driver, plan)


def test_ubuntus_fabric_manager(driver, host, state):
    _, plan = planned(driver, host(A100, switches=6, **UBUNTU), state, archive(580))
    assert "install nvidia-fabricmanager-580=580.95.05-0ubuntu0.24.04.1" in words(driver, plan)


def test_a_branch_that_is_wished(driver, host, state):
    assert planned(driver, host(H100, **UBUNTU), state, archive(535, 580), branch=535)[0].branch == 535
    with pytest.raises(driver.needs.DriverError) as refused:
        planned(driver, host(V100, **UBUNTU), state, archive(580, 595), branch=595)
    assert "branch 525 to 580, branch 595 as was asked for" in str(refused.value)


def test_nothing_that_fits_on_ubuntu(driver, host, state):
    with pytest.raises(driver.needs.DriverError, match=r"found driver 550 in Ubuntu's sources, expected .* Blackwell"):
        planned(driver, host(B200, **UBUNTU), state, archive(550))


def cuda(*streams):
    offered = {f"kernel-devel-{ROCKY['running']}": ROCKY["running"]}
    for stream in streams:
        version = f"{stream.partition('-')[0]}.95.05"
        offered.update({f"nvidia-driver:{stream}": version, f"nvidia-fabric-manager@{stream}": version})
    return offered


def test_rocky_builds_open_modules(driver, host, state):
    choice, plan = planned(driver, host(H100, **ROCKY), state, cuda("570-open", "580", "580-open", "580-dkms"))
    assert choice.stream == "nvidia-driver:580-open"
    assert words(driver, plan)[:3] == [
        "choose the stream nvidia-driver:580-open",
        f"install kernel-devel-{ROCKY['running']} kernel-headers",
        "install kmod-nvidia-open-dkms nvidia-driver-cuda nvidia-persistenced",
    ]


def test_rocky_with_an_older_card(driver, host, state):
    choice, plan = planned(driver, host(V100, **ROCKY), state, cuda("580-open", "580-dkms", "590-dkms"))
    assert choice.stream == "nvidia-driver:580-dkms"
    assert "install kmod-nvidia-latest-dkms nvidia-driver-cuda nvidia-persistenced" in words(driver, plan)


def test_precompiled_modules_on_rocky_are_proprietary(driver, host, state):
    streams = cuda("580", "580-open", "580-dkms")
    choice, plan = planned(driver, host(H100, **ROCKY), state, streams, build="precompiled")
    assert (choice.stream, choice.kind) == ("nvidia-driver:580", "proprietary")
    assert "install nvidia-driver-cuda nvidia-persistenced" in words(driver, plan)
    assert not any("kernel-devel" in one for one in words(driver, plan))
    with pytest.raises(driver.needs.DriverError, match="Blackwell"):
        planned(driver, host(B200, **ROCKY), state, streams, build="precompiled")


def test_rockys_fabric_manager_is_of_the_stream(driver, host, state):
    _, plan = planned(driver, host(A100, switches=6, **ROCKY), state, cuda("570-open", "580-open"))
    assert "install nvidia-fabric-manager-580.95.05" in words(driver, plan)


def test_rocky_without_nvidias_repository(driver, host, state):
    with pytest.raises(driver.needs.DriverError, match="found no NVIDIA driver in NVIDIA's repository"):
        planned(driver, host(H100, **ROCKY), state, cuda())


def test_another_system(driver, host, state):
    with pytest.raises(driver.needs.DriverError, match="found arch, expected Debian, Ubuntu or the RHEL family"):
        planned(driver, host(H100, os="arch"), state)
