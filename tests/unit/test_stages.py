"""What RESUME=1 may leave out: a scenario that passed with this very tree."""

import subprocess
from pathlib import Path

import pytest
from tests import stages


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit with one file."""
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    (tmp_path / "kept").write_text("1")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_whatever_differs_is_another_tree(checkout: Path) -> None:
    seen = [stages.tree()]
    for name, data in (("kept", b"2"), ("new", b"1"), ("new", b"2"), ("kept", b"\0\1"), ("kept", b"\0\2")):
        (checkout / name).write_bytes(data)
        seen.append(stages.tree())
    assert len(set(seen)) == len(seen)
    (checkout / "new").unlink()
    (checkout / "kept").write_text("1")
    assert stages.tree() == seen[0]


def test_each_file_of_e2e_runs_in_one_chain() -> None:
    commands = [stage.command for chain in stages.chains() for stage in chain]
    for path in (stages.ROOT / "tests" / "e2e").glob("test_*.py"):
        assert sum(path.name in command for command in commands) == 1, path.name
