import ast
import re
from pathlib import Path

import pytest

from onprem_llm import openai_client

ROOT = Path(__file__).resolve().parents[3]
# The oldest that ansible-core 2.19 runs modules on, and that host_preflight lets pass.
OLDEST = (3, 8)
ON_HOSTS = sorted([
    *(ROOT / "roles").glob("*/library/*.py"), *(ROOT / "roles").glob("*/module_utils/*.py"),
    *(ROOT / "roles").glob("*/files/**/*.py"), ROOT / "cli/onprem_llm/host_sampler.py",
])  # fmt: skip


def is_program(path: Path) -> bool:
    """Tell whether a file says itself that Python runs it."""
    return path.is_file() and re.match(rb"#!.*python3?\n", path.read_bytes()) is not None


@pytest.mark.parametrize("path", ON_HOSTS, ids=lambda path: path.stem)
def test_what_runs_on_hosts_is_written_for_their_python(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)


def test_the_question_that_a_host_asks_is_written_for_its_python() -> None:
    ast.parse(openai_client.ASK, feature_version=OLDEST)


# What units run on hosts, by /usr/bin/python3: on RHEL 8 that is older than what Ansible runs modules with.
OLDEST_OF_UNITS = (3, 6)
PROGRAMS = sorted([
    *(path for path in (ROOT / "roles").glob("*/files/*") if is_program(path)),
    *(ROOT / "roles/schedule/files").glob("*.py"),
    *(ROOT / "roles/gateway/files").glob("*.py"),
    *(ROOT / "roles/gateway/module_utils" / f"onprem_llm_{name}.py" for name in ("haproxy", "usage", "client_keys")),
    ROOT / "roles/module_parts/module_utils/onprem_llm_write.py",
])  # fmt: skip
# What 3.6 reads and does not know, as far as one reaches for it; https://docs.python.org/3/whatsnew says since when.
LATER = frozenset({
    "annotations", "capture_output", "dataclass", "dirs_exist_ok", "fromisoformat", "missing_ok", "nullcontext",
    "removeprefix", "removesuffix", "text", "ThreadingHTTPServer", "time_ns",
})  # fmt: skip


def test_the_programs_of_units_are_all_looked_at() -> None:
    names = {path.name for path in PROGRAMS}
    assert {"heal", "onprem-llm-keys", "onprem-llm-schedule", "onprem-llm-usage", "schedule_table.py"} <= names
    copied = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "roles").glob("*/tasks/*.yml"))
    loaded = set(re.findall(r"module_utils/(\w+\.py)", copied))
    assert loaded
    assert loaded <= names


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_what_units_run_on_hosts_is_written_for_their_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST_OF_UNITS)
    asked = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    asked |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    asked |= {word.arg or "" for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords}
    assert not asked & LATER
