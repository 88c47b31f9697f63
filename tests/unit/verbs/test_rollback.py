"""rollback: which revision it goes back to is told by what the look says is current."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from recorded_facts import host

from onprem_llm import planned
from onprem_llm.book_history import History, Revision
from onprem_llm.book_state import BookEntry
from onprem_llm.commands import rollback
from onprem_llm.errors import InvalidError
from onprem_llm.main import cli
from onprem_llm.planning.types import Plan
from onprem_llm.probe import parse_current
from onprem_llm.spec.site import Site


def revision(number: int, *, current: bool = False) -> Revision:
    return Revision(number, f"text {number}", {}, None, None, current)


@pytest.fixture
def went_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the texts that were planned: the look says that revision 3 is current, the history another."""
    (tmp_path / "inventory.ini").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    found: list[str] = []
    history = History("tiny", (revision(1), revision(2), revision(3), revision(7, current=True)), ("A note.",))

    def plan_again(name: str, verb: str, *_: Any, revision: Any) -> planned.Planned:
        found.append(revision(BookEntry(3, "text 3", {}, None)).model_yaml)
        facts = host("a", 1, gateway=True)
        facts["book"]["deployments"] = {name: {"revision": 3, "model_yaml": "text 3"}}
        return planned.Planned(Plan("", "a", name, "rollback", 4, ""), Site(), parse_current({"a": facts}))

    monkeypatch.setattr(rollback, "read_history", lambda *_: history)
    monkeypatch.setattr(rollback, "plan_again", plan_again)
    return found


def test_it_goes_back_from_what_is_current_and_shows_the_notes(went_to: list[str]) -> None:
    result = CliRunner().invoke(cli, ["rollback", "tiny", "--yes"], catch_exceptions=False)
    assert went_to == ["text 2"]
    assert "A note." in result.stderr


def test_a_number_is_taken_as_it_is(went_to: list[str]) -> None:
    CliRunner().invoke(cli, ["rollback", "tiny", "1", "--yes"], catch_exceptions=False)
    assert went_to == ["text 1"]


def test_there_is_nothing_before_the_first(went_to: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "read_history", lambda *_: History("tiny", (revision(3, current=True),)))
    with pytest.raises(InvalidError, match="no revision before 3, the current one; it has: 3"):
        CliRunner().invoke(cli, ["rollback", "tiny"], catch_exceptions=False, standalone_mode=False)
