"""Ansible modules as Python: each is loaded from its role, with its module_utils where Ansible would put them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import ansible.module_utils
import pytest

ROLES = Path(__file__).resolve().parents[3] / "roles"

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="session")
def load() -> Load:
    """Return a function that loads `role/module`."""
    for folder in ROLES.glob("*/module_utils"):
        if str(folder) not in ansible.module_utils.__path__:
            ansible.module_utils.__path__.append(str(folder))

    def one(name: str) -> ModuleType:
        role, _, module = name.partition("/")
        path = next(ROLES.glob(f"{role}/*/{module}.py"))
        spec = importlib.util.spec_from_file_location(f"roles_{role}_{module}", path)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found

    return one
