from pathlib import Path

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.secret_values import read_values


def test_values_come_from_the_environment_and_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "one")
    (tmp_path / "two").write_text("two\n")
    references = {"A": {"from_env": "A_TOKEN"}, "B": {"from_file": str(tmp_path / "two")}}
    assert read_values(references, "model.yaml") == {"A": "one", "B": "two"}


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_TOKEN", raising=False)
    with pytest.raises(InvalidError, match="A_TOKEN is not set"):
        read_values({"A": {"from_env": "A_TOKEN"}}, "model.yaml")
    with pytest.raises(InvalidError, match="nowhere"):
        read_values({"A": {"from_file": str(tmp_path / "nowhere")}}, "model.yaml")
