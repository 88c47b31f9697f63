"""The role's modules as Python, with their module_utils where Ansible would put them."""

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import ansible.module_utils
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles" / "gateway"


@pytest.fixture(scope="session", autouse=True)
def _module_utils() -> None:
    for folder in (ROLE / "module_utils", ROLE.parent / "module_parts" / "module_utils"):
        if str(folder) not in ansible.module_utils.__path__:
            ansible.module_utils.__path__.append(str(folder))


def shared(name: str) -> ModuleType:
    return importlib.import_module(f"ansible.module_utils.{name}")


def installed(service: str, folder: Path) -> None:
    """Put the files of a service into a folder, those that the role puts on a host."""
    tasks = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text())
    files = next(task["gateway_service"]["files"] for task in tasks if service in str(task.get("gateway_service")))
    for name, lookup in files.items():
        found = re.search(r"role_path ~ '/([^']+)'", lookup)
        assert found is not None
        (folder / name).write_bytes((ROLE / found.group(1)).read_bytes())


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"roles_gateway_{name}", ROLE / "library" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
