"""Makes the roles' modules importable under the names that Ansible gives them on a host."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROLES = Path(__file__).resolve().parents[3] / "roles"
ROLE_NAMES = ("host_preflight", "container_engine", "gpu_check", "package_repository", "module_parts", "fan_out")


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class _RoleUtils:
    """Finds `ansible.module_utils.<name>` in the roles' own module_utils folders."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> object:
        prefix, _, name = fullname.rpartition(".")
        for role in ROLE_NAMES:
            file = ROLES / role / "module_utils" / f"{name}.py"
            if prefix == "ansible.module_utils" and file.exists():
                return importlib.util.spec_from_file_location(fullname, file)
        return None


@pytest.fixture(scope="session")
def role_module() -> Callable[[str], ModuleType]:
    """Return a loader: `role_module("gpu_check")` for a module, `role_module("container_engine_apt")` for its parts."""
    sys.meta_path.insert(0, _RoleUtils)  # type: ignore[arg-type]

    def load(name: str) -> ModuleType:
        for role in ROLE_NAMES:
            library = ROLES / role / "library" / f"{name}.py"
            if library.exists():
                return _load(f"bootstrap_{name}", library)
        return importlib.import_module(f"ansible.module_utils.{name}")

    return load
