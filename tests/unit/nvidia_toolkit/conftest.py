"""The role nvidia_container_toolkit's parts as Python."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import ansible.module_utils
import pytest

ROLES = Path(__file__).resolve().parents[3] / "roles"
PARTS = ("packages", "plan", "sources", "look", "hands")


@pytest.fixture(scope="session")
def toolkit() -> SimpleNamespace:
    """The role's parts by their short names: toolkit.plan is nvidia_toolkit_plan; toolkit.cdi is shared."""
    for folder in (ROLES / "nvidia_container_toolkit/module_utils", ROLES / "module_parts/module_utils"):
        if str(folder) not in ansible.module_utils.__path__:
            ansible.module_utils.__path__.append(str(folder))
    parts = {name: importlib.import_module(f"ansible.module_utils.nvidia_toolkit_{name}") for name in PARTS}
    return SimpleNamespace(**parts, cdi=importlib.import_module("ansible.module_utils.onprem_llm_cdi"))
