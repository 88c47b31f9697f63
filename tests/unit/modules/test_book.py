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


def test_what_is_under_way_is_ended_by_the_record_and_no_number_is_given_twice(load: Load, tmp_path: Path) -> None:
    record, book = load("book/book_record"), load("book/onprem_llm_book")
    probe = load("host_probe/onprem_llm_probe_state")
    folder = tmp_path / "tiny"
    (tmp_path / "gateway").touch()

    def seen() -> tuple[int, list[int], int]:
        found = probe.book(tmp_path)["deployments"]["tiny"]
        return found["revision"], found["pending"], found["last"]

    assert record.record(entry(tmp_path, 1), False)
    assert seen() == (1, [], 0)
    assert book.note_rollout(folder, [2], 2, False)
    assert not book.note_rollout(folder, [2], 2, False)
    assert seen() == (1, [2], 2)
    assert (folder / "rollout.json").stat().st_mode & 0o777 == 0o600
    assert record.record(entry(tmp_path, 1), False)  # the old one again: what was begun is over
    assert not record.record(entry(tmp_path, 1), False)
    assert seen() == (1, [], 2)
    assert book.note_rollout(folder, [3], 3, False)
    assert record.record(entry(tmp_path, 3, "name: tiny # 3\n"), False)
    assert seen() == (3, [], 3)
    assert book.note_rollout(folder, [], 5, False)
    assert book.note_rollout(folder, [4], 4, False)  # a number that was given stays given
    assert load("book/book_read").read(str(tmp_path), "tiny", 0)["last"] == 5
    assert record.remove(entry(tmp_path, 3), False)
    assert probe.book(tmp_path)["removed"] == {"tiny": 5}


def test_a_note_that_cannot_be_read_is_said(load: Load, tmp_path: Path) -> None:
    probe = load("host_probe/onprem_llm_probe_state")
    assert load("book/book_record").record(entry(tmp_path, 1), False)
    for text in ("torn", "[]", "{}"):
        (tmp_path / "tiny" / "rollout.json").write_text(text)
        (error,) = probe.book(tmp_path)["errors"]
        assert str(tmp_path / "tiny") in error


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
    assert read.read(str(tmp_path), "", 0)["hosts"] == {}
    (tmp_path / "hosts.json").write_text('{"lab-1": {"state": "lost"}}')
    assert read.read(str(tmp_path), "", 0)["hosts"] == {"lab-1": {"state": "lost"}}
    (tmp_path / "second").touch()
    assert read.read(str(tmp_path), "", 0)["mark"] == "second"
    (tmp_path / "gateway").touch()
    assert read.read(str(tmp_path), "", 0)["mark"] == "gateway"
    with pytest.raises(read.BookError, match="cannot be the name"):
        read.read(str(tmp_path), "../x", 0)


def test_the_probe_shows_what_is_wrong_with_lines(load: Load, tmp_path: Path) -> None:
    probe = load("host_probe/onprem_llm_probe_state")
    assert probe.network(tmp_path) is None
    (tmp_path / "network.json").write_text('{"measured_at": "2026", "lines": []}\n')
    assert probe.network(tmp_path) == {"measured_at": "2026", "lines": []}
    # Alone it makes no host a gateway host.
    assert probe.book(tmp_path) is None
