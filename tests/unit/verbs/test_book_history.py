"""History, diff and events, from what book_read.yml returns."""

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from onprem_llm import book_history
from onprem_llm.book_history import read_events, read_history
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.main import cli
from onprem_llm.run_events import HostFailure, RunResult

ONE = """\
# weights: tiny-aaa
api_version: 1
name: tiny
model: model
served_name: tiny
engine:
  image: vllm:1
  engine_args: {max_model_len: 512}
port: 8000
"""
TWO = ONE.replace("512", "1024").replace("vllm:1", "vllm:2")


def revision(number: int, text: str, *, current: bool = False, **more: Any) -> dict[str, Any]:
    about = {"images": {"vllm:1": "sha256:" + "1" * 64}, "recorded_at": "2026-11-21T10:00:00Z", "by": "ann@a"}
    return {"revision": number, "model_yaml": text, "current": current, **about, **more}


def book(mark: str | None = "gateway", revisions: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    history = [revision(1, ONE), revision(2, TWO, current=True)] if revisions is None else revisions
    plain = {"deployments": ["tiny", "big"], "history": {"tiny": history}, "events": [], "problems": [], "hosts": {}}
    return {"mark": mark, **plain, **more}


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """Return a function that says what each host answers; None is a host that does not."""
    (tmp_path / "inventory.ini").write_text("a\n")
    monkeypatch.chdir(tmp_path)

    def answer(**answers: dict[str, Any] | None) -> Connection:
        returned = {host: value for host, value in answers.items() if value is not None}
        failures = tuple(HostFailure(host, "t", "no route", True) for host in answers if host not in returned)
        result = RunResult(tuple(answers), returned, {}, failures)

        def run(playbook: str, connection: Connection, **_: Any) -> RunResult:
            assert (playbook, connection.limit) == ("book_read.yml", None)
            return result

        monkeypatch.setattr(book_history, "run", run)
        return Connection(tmp_path / "inventory.ini")

    return answer


def test_what_a_revision_changed_is_said_field_by_field(hosts: Any) -> None:
    history = read_history(hosts(a=book(None), b=book()), "tiny")
    assert history.current is not None
    assert history.current.number == 2
    assert history.changes(history.revisions[0]) == ()
    assert set(history.changes(history.revisions[1])) == {
        "engine args: max_model_len 512 -> 1024", "engine.image: vllm:1 -> vllm:2",
    }  # fmt: skip


def test_another_image_behind_the_same_name_is_a_change(hosts: Any) -> None:
    again = revision(2, ONE, images={"vllm:1": "sha256:" + "2" * 64})
    history = read_history(hosts(a=book(revisions=[revision(1, ONE), again])), "tiny")
    assert history.changes(history.revisions[1]) == ("image vllm:1: sha256:111111111111 -> sha256:222222222222",)


def test_the_same_image_at_another_registrys_address_is_no_change(hosts: Any) -> None:
    place = "docker.io/vllm@sha256:" + "1" * 64
    first, again = (
        revision(number, ONE, images={"vllm:1": f"{address}/{place}"})
        for number, address in ((1, "10.0.0.2:5000"), (2, "127.0.0.1:5000"))
    )
    history = read_history(hosts(a=book(revisions=[first, again])), "tiny")
    assert history.changes(history.revisions[1]) == ()


def test_an_unknown_revision_names_the_known_ones(hosts: Any) -> None:
    history = read_history(hosts(a=book()), "tiny")
    assert history.revision(1).by == "ann@a"
    with pytest.raises(InvalidError, match="no revision 7; it has: 1, 2"):
        history.revision(7)


def test_unknown_names_name_the_known_ones(hosts: Any) -> None:
    empty = hosts(a=book(revisions=[]))
    with pytest.raises(InvalidError, match="no revision of 'tiny'; it has: tiny, big"):
        read_history(empty, "tiny")
    with pytest.raises(InvalidError, match="cannot be the name"):
        read_history(empty, "{{ tiny }}")
    with pytest.raises(InvalidError, match="knows nothing of 'no'"):
        read_events(empty, "no", 5)


def test_the_copy_is_read_where_the_gateway_is_silent(hosts: Any) -> None:
    history = read_history(hosts(a=None, b=book("second")), "tiny")
    assert history.current is not None
    assert history.notes == ("This is the copy on b: the gateway host did not answer (a)",)


@pytest.mark.parametrize("state", ["lost", "removed"])
def test_a_gateway_that_is_back_and_was_declared_lost_has_no_say(hosts: Any, state: str) -> None:
    stale = book(revisions=[revision(1, ONE, current=True)], events=[{"at": "t", "action": "old"}])
    counts = book(hosts={"a": {"state": state}}, events=[{"at": "t", "action": "new"}])
    history = read_history(hosts(a=stale, b=counts), "tiny")
    assert [one.number for one in history.revisions] == [1, 2]
    assert history.notes == ()
    assert read_events(hosts(a=stale, b=counts), None, 5)[0][0].action == "new"


def test_two_books_that_both_count_are_said(hosts: Any) -> None:
    history = read_history(hosts(a=book(), b=book()), "tiny")
    assert history.notes == ("2 hosts are recorded as the gateway, expected one: a, b; this is what a has",)


def test_gateway_hosts_take_part_whatever_the_limit(hosts: Any) -> None:
    connection = replace(hosts(a=book()), limit="b")
    assert read_history(connection, "tiny").current is not None
    assert read_events(connection, None, 5)[0] == ()


def test_histories_that_differ_are_reported_and_the_gateways_counts(hosts: Any) -> None:
    copy = book("second", [revision(1, TWO, current=True)])
    history = read_history(hosts(b=copy, a=book()), "tiny")
    assert [one.number for one in history.revisions] == [1, 2]
    assert "The book on b differs from a's, which counts: revision 1, 2" in history.notes[0]


def test_numbers_that_came_to_nothing_are_named(hosts: Any) -> None:
    whole = [revision(1, ONE), revision(3, TWO, current=True)]
    history = read_history(hosts(a={**book(revisions=whole), "last": 4}), "tiny")
    assert history.notes == ("Failed or cut off, so not in the book: revision 2, 4; see onprem-llm events tiny",)
    assert read_history(hosts(a=book(revisions=whole[:1])), "tiny").notes == ()


def test_no_gateway_host_is_told_apart_from_one_that_is_silent(hosts: Any) -> None:
    with pytest.raises(UnreachableError, match="no gateway host answered"):
        read_history(hosts(a=None, b=book(None)), "tiny")
    with pytest.raises(UnreachableError, match="no host of this inventory is the gateway host"):
        read_history(hosts(b=book(None)), "tiny")


def test_events_of_before_have_neither_a_person_nor_a_result(hosts: Any) -> None:
    old = {"at": "t", "action": "deploy", "deployment": "tiny", "revision": 1}
    new = {**old, "by": "ann@a", "result": "failed", "message": "no answer\nmore", "revision": 2}
    events, _ = read_events(hosts(a=book(events=[old, new])), None, 5)
    assert [(event.by, event.result) for event in events] == [(None, "ok"), ("ann@a", "failed")]


def test_the_commands(hosts: Any) -> None:
    hosts(a=book(events=[{"at": "t", "action": "deploy", "result": "failed", "message": "no answer\nmore"}]))
    runner = CliRunner()
    shown = runner.invoke(cli, ["history", "tiny"], catch_exceptions=False).output.splitlines()
    assert shown[1].startswith("1 ")
    assert shown[1].endswith("the first")
    assert [line for line in shown if line.startswith("2 *")]
    assert any("max_model_len 512 -> 1024" in line for line in shown)
    document = json.loads(runner.invoke(cli, ["history", "tiny", "--json"], catch_exceptions=False).stdout)
    assert (document["current"], document["revisions"][1]["current"]) == (2, True)
    lines = runner.invoke(cli, ["diff", "tiny", "1", "2"], catch_exceptions=False).output.splitlines()
    assert lines[:2] == ["--- tiny revision 1", "+++ tiny revision 2"]
    assert {"-  engine_args: {max_model_len: 512}", "+  engine_args: {max_model_len: 1024}"} <= set(lines)
    same = runner.invoke(cli, ["diff", "tiny", "1", "1"], catch_exceptions=False).output
    assert same == "Revisions 1 and 1 of tiny are the same.\n"
    shown = runner.invoke(cli, ["events"], catch_exceptions=False).output.splitlines()
    assert shown[1].split() == ["t", "-", "deploy", "-", "-", "failed", "no", "answer"]
