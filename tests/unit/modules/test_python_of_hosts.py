import ast
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


@pytest.mark.parametrize("path", ON_HOSTS, ids=lambda path: path.stem)
def test_what_runs_on_hosts_is_written_for_their_python(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)


def test_the_question_that_a_host_asks_is_written_for_its_python() -> None:
    ast.parse(openai_client.ASK, feature_version=OLDEST)
