"""From one version of the driver to another: who can have it, what is done, and what is left to a reboot."""

import pytest
from tests.unit.nvidia_driver.made_hosts import A100, B200, H100, NEWEST, RUNNING, T4, V100
from tests.unit.nvidia_driver.test_other_systems import KERNEL, ROCKY, UBUNTU, archive
from tests.unit.nvidia_driver.test_plan import words

OLD, NEW = "550.163.01", "580.95.05"
# Debian with NVIDIA's repository; what apt offers where the driver is pinned to 580.*
CUDA = {
    "nvidia-driver-cuda": f"{NEW}-1", "nvidia-kernel-open-dkms": f"{NEW}-1", "nvidia-kernel-dkms": f"{NEW}-1",
    "nvidia-persistenced": f"{NEW}-1", "nvidia-fabricmanager": f"{NEW}-1", "libnvidia-ml1": f"{NEW}-1",
    "linux-headers-amd64": "6.12.117-1",
}  # fmt: skip
HAD = {"nvidia-driver-cuda": f"{OLD}-1", "nvidia-kernel-open-dkms": f"{OLD}-1", "libnvidia-ml1": f"{OLD}-1",
       "nvidia-persistenced": f"{OLD}-1", "linux-headers-amd64": "6.12.117-1"}  # fmt: skip


@pytest.fixture
def running(host):
    """A host whose driver runs, with modules for both kernels."""

    def one(*devices, version=OLD, **other):
        built = {kernel: {"version": version, "open": True} for kernel in (RUNNING, NEWEST)}
        facts = {"loaded": {"version": version, "open": True}, "built": built, "headers": [RUNNING, NEWEST]}
        return host(*devices, **{**facts, **other})

    return one


@pytest.fixture
def having(state):
    """What a host has besides its facts, whose driver was installed by packages."""

    def one(installed=HAD, **other):
        done = {"held": True, "nouveau_blocked": True, "enabled": {"nvidia-persistenced": "enabled"}, "users": []}
        return {**state, "installed": dict(installed), "there": list(installed), **done, **other}

    return one


def upgraded(driver, facts, state, offered, goal="580", **wishes):
    goal = driver.upgrade.goal_of(goal)
    asked = driver.needs.asked(driver.plan.ours(facts), facts["switches"])
    choice = driver.packages.chosen(facts, asked, driver.packages.Wishes(goal.branch, **wishes), offered)
    driver.upgrade.check_found(goal, choice)
    return driver.upgrade.for_upgrade(facts, choice, state, offered)


def test_in_one_go_with_the_hold_lifted_and_put_back(driver, running, having):
    plan = upgraded(driver, running(H100), having(), CUDA)
    assert words(driver, plan) == [
        "let go of the packages that are held",
        f"install nvidia-kernel-open-dkms={NEW}-1 nvidia-driver-cuda={NEW}-1 nvidia-persistenced={NEW}-1 "
        f"libnvidia-ml1={NEW}-1",
        f"build the module {NEW} for {RUNNING}",
        f"build the module {NEW} for {NEWEST}",
        "hold its packages at this version",
        "start nvidia-persistenced at boot",
        f"load the driver {NEW} in the place of the other",
    ]
    assert plan.reboot == []


def test_what_uses_the_gpus_wants_a_reboot_and_is_named(driver, running, having):
    plan = upgraded(driver, running(H100), having(users=["VLLM::Worker", "python3"]), CUDA)
    assert plan.reboot == ["the GPUs are in use by VLLM::Worker, python3"]
    assert not [one for one in words(driver, plan) if "load" in one]


def test_a_driver_that_is_installed_and_does_not_load_is_loaded_alone(driver, running, having):
    facts = running(H100, version=NEW, loaded=None)
    new = {name: version.replace(OLD, NEW) for name, version in HAD.items()}
    assert words(driver, upgraded(driver, facts, having(new), CUDA)) == [
        f"load the driver {NEW} in the place of the other"
    ]
    assert driver.upgrade.has_driver(facts)
    assert not driver.upgrade.has_driver(running(H100, loaded=None, built={}))


def test_the_fabric_manager_comes_along(driver, running, having):
    plan = upgraded(driver, running(A100, switches=6), having(), CUDA)
    assert f"nvidia-fabricmanager={NEW}-1" in words(driver, plan)[1]
    assert "start nvidia-fabricmanager at boot" in words(driver, plan)
    offered = {name: version for name, version in CUDA.items() if "fabric" not in name}
    with pytest.raises(driver.needs.DriverError, match="Fabric Manager"):
        upgraded(driver, running(A100, switches=6), having(), offered)


def test_another_branch_of_ubuntu_takes_the_place_of_the_one_before(driver, running, having):
    had = {
        "nvidia-driver-550-server-open": f"{OLD}-0ubuntu1", "nvidia-utils-550-server": f"{OLD}-0ubuntu1",
        "libnvidia-compute-550-server": f"{OLD}-0ubuntu1", f"linux-modules-nvidia-550-server-open-{KERNEL}": "6.8.0-85",
        "nvidia-container-toolkit": "1.17.8-1", "libnvidia-container1": "1.17.8-1", "linux-image-generic": "6.8.0-85",
    }  # fmt: skip
    facts = running(H100, **UBUNTU, built={KERNEL: {"version": OLD, "open": True}}, headers=[KERNEL])
    plan = upgraded(driver, facts, having(had), archive(580))
    assert words(driver, plan)[1] == (
        f"install linux-modules-nvidia-580-server-open-{KERNEL}=580.95.05-0ubuntu0.24.04.1 "
        "nvidia-driver-580-server-open=580.95.05-0ubuntu0.24.04.1, "
        f"remove libnvidia-compute-550-server linux-modules-nvidia-550-server-open-{KERNEL} "
        "nvidia-driver-550-server-open nvidia-utils-550-server"
    )


EXTRAS = {"nvidia-imex-550": f"{OLD}-1", "libnvidia-nscq-550": f"{OLD}-0ubuntu1"}


@pytest.mark.parametrize("form", ["{}-580", "{}"])
def test_what_stands_beside_the_driver_comes_in_its_new_version(driver, running, having, form):
    """IMEX and NSCQ are no package's dependency: taken away with the old branch, nothing would bring them back."""
    had = {"nvidia-driver-550-server-open": f"{OLD}-0ubuntu1", **EXTRAS}
    facts = running(H100, **UBUNTU, built={KERNEL: {"version": OLD, "open": True}}, headers=[KERNEL])
    imex, nscq = form.format("nvidia-imex"), form.format("libnvidia-nscq")
    offered = {**archive(580), imex: f"{NEW}-1", nscq: f"{NEW}-0ubuntu0.24.04.1"}
    said = words(driver, upgraded(driver, facts, having(had), offered))[1]
    assert f" {imex}={NEW}-1" in said
    assert f" {nscq}={NEW}-0ubuntu0.24.04.1" in said
    assert said.endswith(", remove libnvidia-nscq-550 nvidia-driver-550-server-open nvidia-imex-550")


@pytest.mark.parametrize("other", [{}, {"nvidia-imex-580": "580.65.06-1"}])
def test_what_stands_beside_the_driver_and_has_no_new_version_refuses_it(driver, running, having, other):
    had = {"nvidia-driver-550-server-open": f"{OLD}-0ubuntu1", "nvidia-imex-550": f"{OLD}-1"}
    facts = running(H100, **UBUNTU, built={KERNEL: {"version": OLD, "open": True}}, headers=[KERNEL])
    with pytest.raises(driver.needs.DriverError) as refused:
        upgraded(driver, facts, having(had), {**archive(580), **other})
    assert str(refused.value).startswith("found nvidia-imex-550 on the host and ")
    assert f"expected nvidia-imex-580 of driver {NEW}" in str(refused.value)


def test_apt_is_asked_for_what_stands_beside_a_driver(driver, host):
    known = ["nvidia-imex", "nvidia-imex-580", "libnvidia-nscq-580", "libnvidia-nscq", "libnvidia-compute-580"]
    asked = driver.apt.asked_names(host(), known)
    assert set(known) & set(asked) == set(known[:4])
    assert "libnvidia-nscq" in driver.apt.PREFIXES


def test_modules_of_the_other_kind_go(driver, running, having):
    had = {**HAD, "nvidia-kernel-dkms": f"{OLD}-1", "nvidia-driver-pinning-550": "1"}
    plan = upgraded(driver, running(H100), having(had), CUDA)
    assert words(driver, plan)[1].endswith(", remove nvidia-driver-pinning-550 nvidia-kernel-dkms")


def test_the_rhel_family_takes_a_stream_and_names_versions(driver, running, having):
    kernel = ROCKY["running"]
    offered = {"nvidia-driver:580-open": NEW, f"kernel-devel-{kernel}": kernel}
    had = dict.fromkeys(("kmod-nvidia-open-dkms", "nvidia-driver-cuda", "kernel-headers"), f"{OLD}-1.el9")
    facts = running(H100, **ROCKY, built={kernel: {"version": OLD, "open": True}}, headers=[kernel])
    plan = upgraded(driver, facts, having(had, stream="nvidia-driver:550-open"), offered)
    assert words(driver, plan)[:3] == [
        "let go of the packages that are held",
        "choose the stream nvidia-driver:580-open",
        f"install kmod-nvidia-open-dkms-{NEW} nvidia-driver-cuda-{NEW} nvidia-persistenced-{NEW}",
    ]


def test_a_bundle_on_the_rhel_family_has_no_stream_and_names_versions_all_the_same(driver, running, having):
    """Its packages are there whatever stream is enabled; without a version dnf would find the old ones good."""
    kernel = ROCKY["running"]
    offered = {driver.packages.BROUGHT: "", "nvidia-driver:580-open": NEW, "nvidia-fabric-manager@580-open": NEW}
    had = dict.fromkeys(
        ("kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced", "kernel-headers"), f"{OLD}-1.el9"
    )
    facts = running(A100, **ROCKY, switches=6, built={kernel: {"version": OLD, "open": True}}, headers=[kernel])
    plan = upgraded(driver, facts, having(had, stream="nvidia-driver:550-open"), offered)
    assert words(driver, plan) == [
        "let go of the packages that are held",
        f"install kmod-nvidia-open-dkms-{NEW} nvidia-driver-cuda-{NEW} nvidia-persistenced-{NEW} "
        f"nvidia-fabric-manager-{NEW}",
        f"build the module {NEW} for {kernel}",
        "hold its packages at this version",
        "start nvidia-persistenced at boot",
        "start nvidia-fabricmanager at boot",
        f"load the driver {NEW} in the place of the other",
    ]


def test_secure_boot_refuses_before_anything_is_done(driver, running, having):
    with pytest.raises(driver.needs.DriverError, match=r"found that Secure Boot is on.*Enroll MOK"):
        upgraded(driver, running(H100, secure_boot=True), having(), CUDA)
    assert upgraded(driver, running(H100, secure_boot=True), having(enrolled=True), CUDA).reboot == []


@pytest.mark.parametrize(
    ("device", "goal", "modules", "said"),
    [
        (V100, "590", "auto", "found Volta, which driver 590 cannot run, expected a branch for them: 525 to 580"),
        (B200, "550.163.01", "auto", "found Blackwell, which driver 550 cannot run, expected a branch for them: 570"),
        (B200, "580", "proprietary", "found proprietary modules in onprem_llm_site.nvidia_driver.kernel_modules"),
    ],
)
def test_a_generation_that_the_branch_does_not_know(driver, running, device, goal, modules, said):
    asked = driver.needs.asked(running(device)["gpus"])
    with pytest.raises(driver.needs.DriverError) as refused:
        driver.upgrade.check_generation(asked, driver.upgrade.goal_of(goal), modules)
    assert said in str(refused.value)


def test_generations_that_know_it(driver, running):
    for device, goal in ((V100, "580"), (T4, "590"), (B200, "580.95.05")):
        asked = driver.needs.asked(running(device)["gpus"])
        driver.upgrade.check_generation(asked, driver.upgrade.goal_of(goal), "auto")


def test_a_version_that_no_source_has(driver, running, having):
    with pytest.raises(driver.needs.DriverError) as refused:
        upgraded(driver, running(H100), having(), CUDA, "580.65.06")
    assert "found driver 580.95.05 in the host's package sources, expected 580.65.06" in str(refused.value)
    with pytest.raises(driver.needs.DriverError, match=r"found driver 580 in Debian's sources.*branch 590"):
        upgraded(driver, running(H100), having(), CUDA, "590")


@pytest.mark.parametrize(
    ("goal", "loaded", "newest", "there"),
    [
        ("580", "580.95.05", "580.95.05", True),
        ("580", "580.95.05", None, True),  # the sources have none of it any more
        ("580", "580.105.08", "580.95.05", True),
        ("580", "580.95.05", "580.105.08", False),
        ("580.95.05", "580.95.05", None, True),
        ("580.95.05", "580.105.08", None, False),
        ("580", "550.163.01", "580.95.05", False),
        ("580", None, "580.95.05", False),
    ],
)
def test_who_has_it_already(driver, running, goal, loaded, newest, there):
    facts = running(H100, loaded={"version": loaded, "open": True} if loaded else None)
    assert driver.upgrade.is_there(facts, driver.upgrade.goal_of(goal), newest) is there


@pytest.mark.parametrize("text", ["58", "580.", "580-open", "latest", "580.95.05.1", "v580", ""])
def test_what_is_no_version(driver, text):
    with pytest.raises(driver.needs.DriverError, match="expected a driver's branch"):
        driver.upgrade.goal_of(text)


def test_a_driver_without_packages_is_left_to_people(driver, running):
    with pytest.raises(driver.needs.DriverError, match=r"found driver 550\.163\.01, which no package has brought"):
        driver.upgrade.check_packaged(running(H100), ["nvidia-container-toolkit-base", "libc6"])
    for name in ("nvidia-driver-580-server-open", "kmod-nvidia-open-dkms", "nvidia-kernel-dkms"):
        driver.upgrade.check_packaged(running(H100), [name])
