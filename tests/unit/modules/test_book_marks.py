"""What is said of hosts, in the book."""

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Load


def order(root: Path, purpose: str = "", by: str = "ann@a", **marks: str) -> dict[str, Any]:
    event = {"action": "host drain", "by": by, "message": "h2"}
    return {"path": str(root), "marks": marks, "purpose": purpose, "event": event}


def known(root: Path) -> dict[str, str]:
    return {name: mark["state"] for name, mark in json.loads((root / "hosts.json").read_text()).items()}


def test_a_mark_has_its_person_and_an_event_and_goes_again(load: Load, tmp_path: Path) -> None:
    module = load("book/book_marks")
    assert module.run(order(tmp_path, h2="drained"), False)
    assert json.loads((tmp_path / "hosts.json").read_text())["h2"]["by"] == "ann@a"
    assert (tmp_path / "hosts.json").stat().st_mode & 0o777 == 0o600
    assert not module.run(order(tmp_path, h2="drained"), False)
    assert module.run(order(tmp_path, h3="lost"), False)
    assert known(tmp_path) == {"h2": "drained", "h3": "lost"}
    assert module.run(order(tmp_path, h2=""), False)
    assert known(tmp_path) == {"h3": "lost"}
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 3


def test_a_host_that_was_drained_keeps_that_until_it_is_let_in_again(load: Load, tmp_path: Path) -> None:
    module = load("book/book_marks")
    module.run(order(tmp_path, h2="drained"), False)
    module.run(order(tmp_path, h2="removed", h3="removed"), False)
    module.run(order(tmp_path, h2="lost"), False)
    marks = json.loads((tmp_path / "hosts.json").read_text())
    assert (marks["h2"]["state"], marks["h2"]["was_drained"]) == ("lost", True)
    assert "was_drained" not in marks["h3"]
    module.run(order(tmp_path, h2=""), False)
    module.run(order(tmp_path, h2="removed"), False)
    assert "was_drained" not in json.loads((tmp_path / "hosts.json").read_text())["h2"]


def test_check_mode_writes_nothing(load: Load, tmp_path: Path) -> None:
    assert load("book/book_marks").run(order(tmp_path, h2="drained"), True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("[]", "no object")])
def test_what_cannot_be_read_is_not_written_over(load: Load, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "hosts.json").write_text(text)
    module = load("book/book_marks")
    with pytest.raises(module.BookError, match=said):
        module.run(order(tmp_path, h2="drained"), False)
    assert (tmp_path / "hosts.json").read_text() == text


def test_an_unknown_state_is_refused(load: Load, tmp_path: Path) -> None:
    module = load("book/book_marks")
    with pytest.raises(module.BookError, match="asleep"):
        module.run(order(tmp_path, h2="asleep"), False)


def test_what_a_command_drained_for_its_own_sake_says_so_until_a_person_does(load: Load, tmp_path: Path) -> None:
    module = load("book/book_marks")

    def drained(purpose: str, by: str) -> tuple[str, str | None, bool]:
        module.run(order(tmp_path, purpose, by, h2="drained"), False)
        mark = json.loads((tmp_path / "hosts.json").read_text())["h2"]
        return mark["by"], mark.get("purpose"), "was_drained" in mark

    assert drained("driver upgrade", "ann@a") == ("ann@a", "driver upgrade", False)
    assert drained("driver upgrade", "bob@b") == ("ann@a", "driver upgrade", False)
    assert drained("", "bob@b") == ("bob@b", None, False)
    assert drained("driver upgrade", "ann@a") == ("bob@b", None, False)
    module.run(order(tmp_path, h2="removed"), False)
    assert json.loads((tmp_path / "hosts.json").read_text())["h2"]["was_drained"]
