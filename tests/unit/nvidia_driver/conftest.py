"""The role nvidia_driver's parts as Python, and hosts as its facts say them."""

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ansible.module_utils
import pytest
from tests.unit.nvidia_driver.made_hosts import BARE, STATE

ROLES = Path(__file__).resolve().parents[3] / "roles"
PARTS = ("needs", "packages", "plan", "reasons", "sources", "look", "steps", "apt", "dnf", "upgrade", "turn")


@pytest.fixture(scope="session")
def driver() -> SimpleNamespace:
    """The role's parts by their short names: driver.plan is nvidia_driver_plan."""
    for folder in (ROLES / "nvidia_driver/module_utils", ROLES / "module_parts/module_utils"):
        if str(folder) not in ansible.module_utils.__path__:
            ansible.module_utils.__path__.append(str(folder))
    parts = {name: importlib.import_module(f"ansible.module_utils.nvidia_driver_{name}") for name in PARTS}
    chips = importlib.import_module("ansible.module_utils.onprem_llm_nvidia_chips")
    return SimpleNamespace(**parts, chips=chips)


@pytest.fixture(autouse=True)
def turn_file(driver: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file by which one at a time is at work on a driver, not this machine's."""
    file = tmp_path / "driver.lock"
    monkeypatch.setattr(driver.turn, "LOCK", file)
    return file


@pytest.fixture
def host() -> Callable[..., dict[str, Any]]:
    """Return facts of a host with GPUs of these device ids; keywords replace a fact."""

    def one(*devices: int, **other: Any) -> dict[str, Any]:
        facts = copy.deepcopy(BARE)
        facts["gpus"] = [
            {"address": f"0000:{17 + number:02x}:00.0", "device": device, "driver": None}
            for number, device in enumerate(devices)
        ]
        return {**facts, **other}

    return one


@pytest.fixture
def state() -> dict[str, Any]:
    """What a host has besides its facts: nothing yet."""
    return copy.deepcopy(STATE)
