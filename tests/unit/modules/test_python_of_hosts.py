import ast
from pathlib import Path

import pytest

ROLES = Path(__file__).resolve().parents[3] / "roles"
ON_HOSTS = sorted([*ROLES.glob("*/library/*.py"), *ROLES.glob("*/module_utils/*.py"), *ROLES.glob("*/files/**/*.py")])


@pytest.mark.parametrize("path", ON_HOSTS, ids=lambda path: path.stem)
def test_modules_are_written_for_the_python_of_old_hosts(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))
