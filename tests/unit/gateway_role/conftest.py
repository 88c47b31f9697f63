"""The role's modules as Python, with their module_utils where Ansible would put them."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import ansible.module_utils
import pytest

ROLE = Path(__file__).resolve().parents[3] / "roles" / "gateway"


@pytest.fixture(scope="session", autouse=True)
def _module_utils() -> None:
    if str(ROLE / "module_utils") not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(str(ROLE / "module_utils"))


def shared(name: str) -> ModuleType:
    return importlib.import_module(f"ansible.module_utils.{name}")


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"roles_gateway_{name}", ROLE / "library" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
