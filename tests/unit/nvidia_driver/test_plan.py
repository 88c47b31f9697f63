"""What is done on a host that has no driver yet, and what is not done on one that has."""

import pytest
from tests.unit.nvidia_driver.made_hosts import A100, B200, GH200, H100, K80, NEWEST, RUNNING, T4, V100

DEBIAN_13 = {
    "nvidia-kernel-dkms": "550.163.01-2", "nvidia-open-kernel-dkms": "550.163.01-2", "nvidia-smi": "550.163.01-2",
    "libcuda1": "550.163.01-2", "libnvidia-nvvm4": "550.163.01-2", "nvidia-persistenced": "550.163.01-1",
    "linux-headers-amd64": "6.12.117-1", f"linux-headers-{NEWEST}": "6.12.117-1",
    f"linux-headers-{RUNNING}": "6.12.48-1",
}  # fmt: skip
PARTS = ["nvidia-smi", "libcuda1", "libnvidia-nvvm4", "nvidia-persistenced"]
HEADERS = [f"linux-headers-{RUNNING}", f"linux-headers-{NEWEST}", "linux-headers-amd64"]


def planned(driver, facts, state, offered=None, **wishes):
    asked = driver.needs.asked(driver.plan.ours(facts), facts["switches"])
    choice = driver.packages.chosen(facts, asked, driver.packages.Wishes(**wishes), offered or DEBIAN_13)
    return choice, driver.plan.for_packages(facts, choice, state)


def words(driver, plan):
    return [driver.steps.in_words(action) for action in plan.actions]


def checks(plan):
    return {one["check"]: one["level"] for one in plan.findings}


def test_debian_13_from_nothing(driver, host, state):
    choice, plan = planned(driver, host(H100, H100), state)
    assert (choice.version, choice.kind) == ("550.163.01", "proprietary")
    assert words(driver, plan) == [
        "install " + " ".join(HEADERS),
        "install nvidia-kernel-dkms " + " ".join(PARTS),
        "block nouveau",
        f"build the module 550.163.01 for {RUNNING}",
        f"build the module 550.163.01 for {NEWEST}",
        "hold its packages at this version",
        "start nvidia-persistenced at boot",
        "load the driver 550.163.01",
    ]
    assert plan.reboot == []
    assert checks(plan) == {"nvidia_driver": "ok"}


def test_headers_of_a_kernel_that_is_not_there_are_not_brought(driver, host, state):
    _, plan = planned(driver, host(H100, running=RUNNING, newest=RUNNING), state)
    assert words(driver, plan)[0] == f"install linux-headers-{RUNNING}"


def test_volta_gets_the_proprietary_modules(driver, host, state):
    choice, plan = planned(driver, host(V100), state)
    assert choice.kind == "proprietary"
    assert "install nvidia-kernel-dkms " + " ".join(PARTS) in words(driver, plan)


def test_open_modules_that_are_wished_take_the_place_of_the_others(driver, host, state):
    choice, plan = planned(driver, host(H100), {**state, "there": ["nvidia-kernel-dkms"]}, modules="open")
    assert choice.kind == "open"
    assert words(driver, plan)[:3] == [
        "remove nvidia-kernel-dkms",
        "install " + " ".join(HEADERS),
        "install nvidia-open-kernel-dkms " + " ".join(PARTS),
    ]


def test_grace_hopper_gets_debians_open_modules(driver, host, state):
    assert planned(driver, host(GH200), state)[0].kind == "open"


def test_debian_12_takes_what_its_branch_can(driver, host, state):
    offered = {name: version.replace("550.163.01", "535.261.03") for name, version in DEBIAN_13.items()}
    assert planned(driver, host(T4), state, offered)[0].kind == "proprietary"


def test_debians_driver_does_not_know_blackwell(driver, host, state):
    with pytest.raises(driver.needs.DriverError) as refused:
        planned(driver, host(B200), state)
    assert "found driver 550 in Debian's sources, expected one for Blackwell: branch 570 or newer" in str(refused.value)
    assert "onprem_llm_site.package_mirrors.cuda" in str(refused.value)


def test_nvidias_repository_on_debian(driver, host, state):
    own = {
        "nvidia-driver-cuda": "580.95.05-1", "nvidia-kernel-open-dkms": "580.95.05-1",
        "nvidia-kernel-dkms": "580.95.05-1", "nvidia-fabricmanager-580": "580.95.05-1", "nvlsm": "2025.06.11-1",
    }  # fmt: skip
    choice, plan = planned(driver, host(B200), state, {**DEBIAN_13, **own})
    assert choice.version == "580.95.05"
    installs = [action["names"] for action in plan.actions if action["do"] == "install"]
    assert installs[1] == ["nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"]
    assert installs[2] == ["nvidia-fabricmanager-580=580.95.05-1", "nvlsm"]
    assert "start nvidia-fabricmanager at boot" in words(driver, plan)


@pytest.mark.parametrize("version", ["580.82.07-1", None])
def test_a_fabric_manager_of_another_version_will_not_do(driver, host, state, version):
    own = {"nvidia-driver-cuda": "580.95.05-1", "nvidia-kernel-open-dkms": "580.95.05-1"}
    offered = {**DEBIAN_13, **own, **({"nvidia-fabricmanager-580": version} if version else {})}
    with pytest.raises(driver.needs.DriverError) as refused:
        planned(driver, host(A100, switches=6), state, offered)
    assert (f"nvidia-fabricmanager-580 {version}" if version else "no Fabric Manager") in str(refused.value)
    assert "expected that of driver 580.95.05" in str(refused.value)


def test_a_second_run_does_nothing(driver, host, state):
    facts = host(H100, running=NEWEST, headers=[NEWEST], built={NEWEST: {"version": "550.163.01", "open": False}})
    packages = ["nvidia-kernel-dkms", *PARTS, "linux-headers-amd64"]
    done = {
        **state, "installed": {name: DEBIAN_13[name] for name in packages}, "held": True, "nouveau_blocked": True,
        "enabled": {"nvidia-persistenced": "enabled"},
    }  # fmt: skip
    assert words(driver, planned(driver, facts, done)[1]) == ["load the driver 550.163.01"]
    facts["running"] = "6.18.44-other"
    _, plan = planned(driver, {**facts, "newest": NEWEST}, done)
    assert plan.actions == []
    assert plan.reboot == [f"the driver's module is built for {NEWEST}, and 6.18.44-other runs"]
    assert checks(plan) == {"nvidia_driver": "ok", "nvidia_headers": "warning"}


def test_nouveau_wants_a_reboot_and_is_never_torn_out(driver, host, state):
    _, plan = planned(driver, host(H100, nouveau=True), state)
    assert plan.reboot == ["the driver nouveau has the GPUs"]
    assert "load the driver 550.163.01" not in words(driver, plan)


def test_no_headers_anywhere(driver, host, state):
    offered = {name: version for name, version in DEBIAN_13.items() if not name.startswith("linux-headers-6")}
    with pytest.raises(driver.needs.DriverError) as refused:
        planned(driver, host(H100), state, offered)
    assert f"found no headers of the kernel {RUNNING} or {NEWEST}" in str(refused.value)


def test_secure_boot_is_explained_and_no_reboot_is_asked_for(driver, host, state):
    _, plan = planned(driver, host(H100, secure_boot=True, nouveau=True), state)
    assert plan.reboot == []
    assert "load the driver 550.163.01" not in words(driver, plan)
    found = next(one for one in plan.findings if one["check"] == "secure_boot")
    assert found["level"] == "warning"
    assert "mokutil --import /var/lib/dkms/mok.pub" in found["remedy"]
    assert "Enroll MOK" in found["remedy"]
    _, plan = planned(driver, host(H100, secure_boot=True), {**state, "enrolled": True})
    assert words(driver, plan)[-1] == "load the driver 550.163.01"


def test_a_driver_that_runs_is_left_alone(driver, host):
    facts = host(H100, loaded={"version": "535.183.01", "open": False}, built={RUNNING: {}, NEWEST: {}})
    facts["gpus"][0]["driver"] = "nvidia"
    plan = driver.plan.settled(facts)
    assert plan.actions == []
    assert plan.reboot == []
    assert plan.findings[0]["found"] == "driver 535.183.01 (proprietary modules) runs, and is left alone"
    assert checks(plan) == {"nvidia_driver": "ok"}


def test_a_driver_that_is_too_old_is_said_to_be(driver, host):
    plan = driver.plan.settled(host(A100, loaded={"version": "470.256.02", "open": False}))
    assert plan.actions == []
    assert checks(plan)["nvidia_driver"] == "warning"


def test_a_lost_gpu_and_a_next_kernel_without_a_module(driver, host):
    facts = host(H100, H100, loaded={"version": "580.95.05", "open": True}, built={RUNNING: {"version": "580.95.05"}})
    facts["gpus"][0]["driver"] = "nvidia"
    plan = driver.plan.settled(facts)
    assert plan.findings[1]["found"] == "the driver does not have 0000:12:00.0"
    assert plan.findings[2]["found"] == f"no NVIDIA module for {NEWEST}, which boots next"
    assert plan.actions == []


def test_an_old_card_for_the_console_is_left_out(driver, host, state):
    alone = driver.plan.settled(host(K80))
    assert (alone.actions, checks(alone)) == ([], {"nvidia_driver": "ok", "nvidia_old_gpu": "warning"})
    _, plan = planned(driver, host(K80, H100), state)
    assert checks(plan) == {"nvidia_driver": "ok", "nvidia_old_gpu": "warning"}
    assert "for 1 GPU(s)" in plan.findings[0]["found"]
    assert "10de:102d" in plan.findings[1]["found"]


def test_gpus_that_do_not_go_together_run_all_the_same(driver, host):
    plan = driver.plan.settled(host(V100, B200, loaded={"version": "580.95.05", "open": True}))
    assert checks(plan)["nvidia_driver"] == "warning"
    assert plan.findings[0]["found"] == "Volta and Blackwell in one host"


def test_hosts_without_gpus_of_their_own(driver, host):
    assert driver.plan.settled(host()).findings[0]["found"].startswith("no NVIDIA GPU")
    facts = host(K80)
    facts["gpus"][0]["driver"] = "vfio-pci"
    assert driver.plan.settled(facts).actions == []
    assert driver.plan.settled(host(H100)) is None
