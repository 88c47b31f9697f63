"""A role's README says what its argument_specs say."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load():
    spec = importlib.util.spec_from_file_location("role_readmes", ROOT / "docs" / "role_readmes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


READMES = load()


def test_there_are_some():
    assert {"host_preflight", "container_engine", "gpu_check"} <= set(READMES.generated())


@pytest.mark.parametrize("role", READMES.generated())
def test_readme_is_up_to_date(role):
    assert (READMES.ROLES / role / "README.md").read_text() == READMES.made(role), "run: python docs/role_readmes.py"
