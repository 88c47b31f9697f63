"""NVIDIA's own installer: what its name says, what it needs, how it is called."""

from typing import Any

import pytest
from tests.unit.nvidia_driver.made_hosts import H100, NEWEST, RUNNING, V100
from tests.unit.nvidia_driver.test_plan import DEBIAN_13, words

NAME = "NVIDIA-Linux-x86_64-580.95.05.run"
PATH = f"/var/lib/onprem-llm/drivers/{NAME}"
TOOLS = ["dkms", "gcc", "make", "libc6-dev"]


def planned(driver: Any, facts: dict, state: dict, name: str = NAME, **wishes: Any) -> Any:
    asked = driver.needs.asked(facts["gpus"], facts["switches"])
    wanted = driver.packages.Wishes(**wishes)
    choice = driver.packages.of_run_file(facts, asked, wanted, DEBIAN_13, name)
    return choice, driver.plan.for_run_file(facts, choice, state, PATH)


def test_from_nothing(driver, host, state):
    choice, plan = planned(driver, host(H100), state)
    assert (choice.branch, choice.version, choice.kind) == (580, "580.95.05", "open")
    assert words(driver, plan)[:6] == [
        f"install linux-headers-{RUNNING} linux-headers-{NEWEST}",
        "install " + " ".join(TOOLS),
        f"run {PATH} for {RUNNING}",
        "block nouveau",
        f"build the module 580.95.05 for {RUNNING}",
        f"build the module 580.95.05 for {NEWEST}",
    ]


def test_it_is_not_run_again(driver, host, state):
    built = {kernel: {"version": "580.95.05", "open": True} for kernel in (RUNNING, NEWEST)}
    facts = host(H100, headers=[RUNNING, NEWEST], built=built)
    done = {**state, "installed": dict.fromkeys(TOOLS, "1"), "held": True, "nouveau_blocked": True}
    assert words(driver, planned(driver, facts, done)[1]) == ["load the driver 580.95.05"]


def test_kinds_of_modules(driver, host, state):
    assert planned(driver, host(V100), state)[0].kind == "proprietary"
    assert driver.steps.kind_option(580, "open") == "--kernel-module-type=open"
    assert driver.steps.kind_option(550, "open") == "--kernel-module-build-directory=kernel-open"
    assert driver.steps.kind_option(535, "proprietary") == "--kernel-module-build-directory=kernel"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NVIDIA-Linux-aarch64-580.95.05.run", "expected NVIDIA-Linux-x86_64-VERSION.run"),
        ("driver.run", "expected NVIDIA-Linux-x86_64-VERSION.run"),
        ("NVIDIA-Linux-x86_64-590.44.01.run", "expected one for Volta: branch 525 to 580"),
    ],
)
def test_files_that_will_not_do(driver, host, state, name, said):
    with pytest.raises(driver.needs.DriverError, match=said):
        planned(driver, host(V100), state, name)


def test_nvswitches_want_packages(driver, host, state):
    with pytest.raises(driver.needs.DriverError, match="a Fabric Manager of the driver's version"):
        planned(driver, host(H100, switches=4), state)


def test_the_installer_is_told_all_and_its_failure_is_said(driver, monkeypatch):
    called: list[list[str]] = []
    monkeypatch.setattr(driver.steps, "run", lambda argv, *_: called.append(argv) or (1, "ERROR: no compiler"))
    monkeypatch.setattr(driver.steps.record, "note_run_file", lambda path: None)
    action = {"do": "run_file", "path": PATH, "kind": "open", "kernel": RUNNING, "branch": 580}
    with pytest.raises(driver.needs.DriverError, match="ERROR: no compiler"):
        driver.steps.Steps(None).carry_out(action)
    assert called == [[
        "sh", PATH, "--silent", "--no-questions", "--ui=none", "--dkms", "--no-x-check", "--no-nouveau-check",
        f"--kernel-name={RUNNING}", "--kernel-module-type=open",
    ]]  # fmt: skip
