"""NVIDIA's own installer: what its name says, what it needs, how it is called."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.unit.nvidia_driver.made_hosts import H100, NEWEST, RUNNING, V100
from tests.unit.nvidia_driver.test_plan import DEBIAN_13, words

NAME = "NVIDIA-Linux-x86_64-580.95.05.run"
PATH = f"/var/lib/onprem-llm/drivers/{NAME}"
LIBRARY = Path(__file__).resolve().parents[3] / "roles/nvidia_driver/library/nvidia_driver.py"
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


@pytest.fixture
def module(driver, state, monkeypatch):
    """The module on a host whose packages are as DEBIAN_13 says; facts come from `module.facts`."""
    spec = importlib.util.spec_from_file_location("nvidia_driver_module", LIBRARY)
    assert spec is not None
    assert spec.loader is not None
    made: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    monkeypatch.setattr(made.look, "facts", lambda: made.facts)
    monkeypatch.setattr(made.steps, "state", lambda _: dict(state))
    monkeypatch.setattr(made.Apt, "offered", lambda _: DEBIAN_13)
    return made


def answer(module: Any, run_file: str | None = f"/site/{NAME}") -> Any:
    defaults = {name: one.get("default") for name, one in module.OPTIONS.items()}
    given = {"run_file": run_file, "run_folder": str(Path(PATH).parent)}
    return module.answer({**defaults, **given}, check_mode=True)


def test_a_look_says_where_the_installer_comes_from_and_in_which_folder_it_will_be_run(module, host):
    module.facts = host(H100)
    found = answer(module)
    assert found["failure"] == ""
    assert found["installer"] == {"folder": "/site", "name": NAME}
    assert f"run {PATH} for {RUNNING}" in found["actions"]


@pytest.mark.parametrize("why", ["no GPU", "a driver that runs", "already built", "packages"])
def test_a_host_that_does_not_run_it_does_not_get_it(module, host, why):
    kernels = (RUNNING, NEWEST)
    built = {"headers": list(kernels), "built": {one: {"version": "580.95.05", "open": True} for one in kernels}}
    running = {"loaded": {"version": "580.95.05", "open": True}}
    module.facts = host(
        *([] if why == "no GPU" else [H100]), **{"a driver that runs": running, "already built": built}.get(why, {})
    )
    for gpu in module.facts["gpus"]:
        gpu["driver"] = "nvidia" if why == "a driver that runs" else None
    assert answer(module, *([None] if why == "packages" else []))["installer"] is None


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
