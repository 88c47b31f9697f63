from pathlib import Path

import pytest

from onprem_llm.commands.status import see
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.look import View
from onprem_llm.openai_client import events, text_of
from onprem_llm.probe import parse_current
from onprem_llm.run_events import HostFailure
from onprem_llm.running import _seconds_since, only_deployment


def test_the_only_deployment_need_not_be_named() -> None:
    assert only_deployment({"tiny": object()}) == "tiny"
    with pytest.raises(InvalidError, match="there are 2: a, b"):
        only_deployment({"a": object(), "b": object()})
    with pytest.raises(InvalidError, match="nothing is deployed"):
        only_deployment({})


def test_events_are_read_and_done_is_none() -> None:
    lines = [": ping", 'data: {"choices": [{"delta": {"content": "Hi"}}]}', "", "data: [DONE]"]
    assert [text_of(event) for event in events(lines)] == ["Hi"]


def test_a_completions_text_counts_too() -> None:
    assert text_of({"choices": [{"text": "Hi"}]}) == "Hi"
    assert text_of({"choices": []}) == ""


def test_dockers_times_have_nine_digits() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 11, 21, 4, 1, tzinfo=UTC)
    assert _seconds_since("2026-11-21T04:00:21.362565614Z", now) == 39
    assert _seconds_since("0001-01-01T00:00:00Z", now) is None


def test_status_has_what_could_not_be_looked_at() -> None:
    current = parse_current({"a": {"schema": 2, "problems": ["weights: no answer within 60 s"]}}, ["b"])
    view = View(current, (HostFailure("b", "t", "no route", unreachable=True),), "salt")
    seen = see(view, Connection(Path("/i/inventory.ini")))
    hosts = seen.as_json()["hosts"]
    assert isinstance(hosts, list)
    assert [(host["name"], host["answered"], host["error"], host["problems"]) for host in hosts] == [
        ("a", True, None, ["weights: no answer within 60 s"]),
        ("b", False, "no route", []),
    ]
    assert "a: this part could not be looked at: weights: no answer within 60 s" in seen.notes
