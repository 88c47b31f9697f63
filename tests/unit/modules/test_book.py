"""The book's events and the reading of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Load

TEXT = "name: tiny\n"


def entry(root: Path, revision: int, text: str = TEXT, **more: Any) -> dict[str, Any]:
    plain = {"images": {"r": "i"}, "placement": {}, "removed": False, "event": {}}
    return {"path": str(root), "deployment": "tiny", "revision": revision, "model_yaml": text, **plain, **more}


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]


def test_a_revision_keeps_who_made_it_when_it_is_put_back(load: Load, tmp_path: Path) -> None:
    record, read = load("book/book_record"), load("book/book_read")
    assert record.record(entry(tmp_path, 1, event={"by": "ann@a"}), False)
    assert record.record(entry(tmp_path, 2, "name: tiny # 2\n", event={"by": "bob@b"}), False)
    assert record.record(
        entry(tmp_path, 1, event={"by": "bob@b"}, placement={"tiny-0": {"host": "h1", "revision": 1}}), False
    )
    assert not record.record(
        entry(tmp_path, 1, event={"by": "bob@b"}, placement={"tiny-0": {"host": "h1", "revision": 1}}), False
    )
    answer = read.read(str(tmp_path), "tiny", 0)
    shown = [(one["revision"], one["by"], one["current"]) for one in answer["history"]["tiny"]]
    assert shown == [(1, "ann@a", True), (2, "bob@b", False)]
    assert answer["history"]["tiny"][0]["placement"] == {"tiny-0": {"host": "h1", "revision": 1}}
    assert answer["history"]["tiny"][1]["model_yaml"] == "name: tiny # 2\n"
    assert record.remove(entry(tmp_path, 1), False)
    assert not any(one["current"] for one in read.read(str(tmp_path), "tiny", 0)["history"]["tiny"])


def test_a_written_revision_notes_who_did_what_with_what_result(load: Load, tmp_path: Path) -> None:
    record = load("book/book_record")
    record.note(entry(tmp_path, 3, event={"action": "scale", "by": "ann@a"}))
    (event,) = lines(tmp_path)
    assert event.pop("at").endswith("Z")
    assert event == {
        "action": "scale", "by": "ann@a", "deployment": "tiny", "message": "", "result": "ok", "revision": 3,
    }  # fmt: skip
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_events_are_only_ever_added(load: Load, tmp_path: Path) -> None:
    event = load("book/book_event")
    told = {"action": "deploy", "deployment": "tiny", "result": "failed", "message": "x" * 5000, "by": "ann@a"}
    for _ in range(2):
        event.append_event(tmp_path, event.checked(told))
    assert [one["result"] for one in lines(tmp_path)] == ["failed", "failed"]
    assert len(lines(tmp_path)[0]["message"]) == 2000


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"deployment": "tiny"}, "needs an action"),
        ({"action": "deploy", "result": "maybe"}, "ok or failed, found 'maybe'"),
        ({"action": "deploy", "deployment": "../x"}, "cannot be the name"),
    ],
)
def test_an_event_that_could_not_be_shown_is_refused(load: Load, told: dict[str, Any], said: str) -> None:
    event = load("book/book_event")
    with pytest.raises(event.BookError, match=said):
        event.checked(told)


def test_events_of_one_deployment_the_last_ones_and_a_torn_line(load: Load, tmp_path: Path) -> None:
    read = load("book/book_read")
    told = [{"deployment": "tiny" if number % 2 else "other", "n": number} for number in range(6)]
    text = "\n".join(json.dumps(one) for one in told) + '\n{"deployment": "ti'
    (tmp_path / "events.jsonl").write_text(text)
    answer = read.read(str(tmp_path), "tiny", 2)
    assert [one["n"] for one in answer["events"]] == [3, 5]
    assert [one["n"] for one in read.read(str(tmp_path), "", 3)["events"]] == [3, 4, 5]
    assert "1 lines are not whole" in answer["problems"][0]
    load("book/book_event").append_event(tmp_path, {"deployment": "tiny", "n": 7})
    assert [one["n"] for one in read.read(str(tmp_path), "tiny", 2)["events"]] == [5, 7]


def test_a_host_says_what_it_is_for_the_book(load: Load, tmp_path: Path) -> None:
    read = load("book/book_read")
    assert read.read(str(tmp_path / "none"), "tiny", 5)["mark"] is None
    assert read.read(str(tmp_path), "tiny", 0)["history"] == {"tiny": []}
    (tmp_path / "second").touch()
    assert read.read(str(tmp_path), "", 0)["mark"] == "second"
    (tmp_path / "gateway").touch()
    assert read.read(str(tmp_path), "", 0)["mark"] == "gateway"
    with pytest.raises(read.BookError, match="cannot be the name"):
        read.read(str(tmp_path), "../x", 0)
