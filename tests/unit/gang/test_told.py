"""What the program says about what it is told, and that it runs wherever an engine does."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gang.ranks import PYTHON, write_program

from onprem_llm.rendering.gang import GangRank, gang_health_check, in_gang, program, program_digest

PLACE = GangRank(0, 2, "10.0.0.1:7600", "10.0.0.1", "abc", "http://10.0.0.1:8000/health")


def _run(start: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    there = {**{name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}, **environment}
    return subprocess.run(
        [*PYTHON, str(start), *arguments], capture_output=True, text=True, check=False, timeout=60, env=there
    )


def test_it_needs_the_standard_library_of_python_3_10_alone() -> None:
    for name, text in program().items():
        for node in ast.walk(ast.parse(text, name, feature_version=(3, 10))):
            if isinstance(node, ast.Import):
                assert {one.name.split(".")[0] for one in node.names} <= sys.stdlib_module_names
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert str(node.module).split(".")[0] in {*sys.stdlib_module_names, "gang_program"}


def test_its_digest_changes_with_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    before, other = program_digest(), {**program(), "gang/gang.py": "other"}
    monkeypatch.setattr("onprem_llm.rendering.gang._files", lambda: other)
    assert program_digest() != before


def test_the_command_line_as_it_is_rendered_is_understood(tmp_path: Path) -> None:
    start = write_program(tmp_path)
    line = in_gang(PLACE, ["vllm", "serve", "/models/tiny", "--port", "8000"])
    assert line == [
        *("python3", "/run/onprem-llm/gang.py", "--rank", "0", "--size", "2", "--leader", "10.0.0.1:7600"),
        *("--me", "10.0.0.1", "--revision", "abc", "--health", "http://10.0.0.1:8000/health"),
        *("--", "vllm", "serve", "/models/tiny", "--port", "8000"),
    ]
    done = _run(start, *line[2:])
    assert (done.returncode, done.stderr) == (
        2, "gang: VLLM_API_KEY is not set: the ranks know each other by their engine key\n",
    )  # fmt: skip
    assert gang_health_check(start_period=600, interval=5)["test"] == ["CMD", *line[:2], "--healthy"]


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (("--rank", "2"), "--rank 2: expected 0 to 1, for --size 2"),
        (("--leader", "10.0.0.1"), "'10.0.0.1': expected ADDR:PORT"),
        (("--health", ""), "--health: rank 0 has to be told where its engine answers"),
        (("--me", None), "missing: --me"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path: Path, cut: tuple[str, str | None], said: str) -> None:
    line = in_gang(PLACE, ["vllm"])[2:]
    at = line.index(cut[0])
    line[at : at + 2] = [] if cut[1] is None else [cut[0], cut[1]]
    done = _run(write_program(tmp_path), *line, VLLM_API_KEY="sk-e")
    assert done.returncode == 2
    assert said in done.stderr


def test_no_command_is_named(tmp_path: Path) -> None:
    done = _run(write_program(tmp_path), *in_gang(PLACE, [])[2:], VLLM_API_KEY="sk-e")
    assert (done.returncode, "no command after --" in done.stderr) == (2, True)


def test_health_before_the_beginning(tmp_path: Path) -> None:
    done = _run(write_program(tmp_path), "--healthy", "--state", str(tmp_path / "none"))
    assert (done.returncode, "has not begun" in done.stdout) == (1, True)
