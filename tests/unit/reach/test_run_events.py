"""What a run's events come to: results, failures, and what a person sees of them."""

from typing import Any

import pytest

from onprem_llm.run_events import Collector, first_line, merge, message_of


class Shown:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, str]] = []

    def step(self, title: str, hosts: object) -> None: ...

    def host(self, host: str, state: str, detail: str = "") -> None:
        if state != "running":
            self.ends.append((host, state, detail))

    def bytes(self, host: str, done: int, total: int) -> None: ...

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *error: object) -> None: ...


def event(kind: str, host: str = "", **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": {"host": host, "task": "Do it", **data}}


def played(*events: dict[str, Any], **stats: dict[str, int]) -> tuple[Collector, Shown]:
    shown = Shown()
    collector = Collector(shown)
    for each in events:
        assert collector(each) is False, "an event that is written to disk costs a file"
    collector({"event": "playbook_on_stats", "event_data": stats})
    return collector, shown


def test_hosts_come_in_the_order_in_which_they_started_whatever_answers_first() -> None:
    starts = [event("runner_on_start", host) for host in ("b", "a")]
    ends = [event("runner_on_ok", host, res={"onprem_llm": {"n": host}}) for host in ("a", "b")]
    collector, shown = played(*starts, *ends, ok={"a": 1, "b": 1}, changed={"a": 2})
    result = collector.result()
    assert result.hosts == ("b", "a")
    assert list(result.returned) == ["b", "a"]
    assert result.changed == {"a": 2}
    assert shown.ends == [("b", "ok", ""), ("a", "changed", "")]


def test_findings_of_several_tasks_add_up() -> None:
    events = [event("runner_on_ok", "a", res={"onprem_llm": {"findings": [n]}}) for n in (1, 2)]
    assert played(*events)[0].result().returned == {"a": {"findings": [1, 2]}}


def test_a_loop_returns_what_its_items_returned() -> None:
    items = [{"onprem_llm": {"resolved": {name: "x"}}} for name in ("one", "two")]
    collector, _ = played(event("runner_on_ok", "a", res={"results": items}))
    assert collector.result().returned == {"a": {"resolved": {"one": "x", "two": "x"}}}


def test_what_a_failed_task_returned_is_kept_beside_the_failure() -> None:
    res = {"msg": "it crashed", "onprem_llm": {"log": "boom"}}
    collector, shown = played(event("runner_on_failed", "a", res=res), failures={"a": 1})
    (failure,) = collector.result().failures
    assert (failure.host, failure.task, failure.message, failure.unreachable) == ("a", "Do it", "it crashed", False)
    assert collector.result().returned["a"]["log"] == "boom"
    assert shown.ends == [("a", "failed", "it crashed")]


@pytest.mark.parametrize(
    ("data", "stats"), [({}, {"rescued": {"a": 1}}), ({"ignore_errors": True}, {"ignored": {"a": 1}})]
)
def test_a_mended_failure_is_none(data: dict[str, Any], stats: dict[str, dict[str, int]]) -> None:
    collector, _ = played(event("runner_on_failed", "a", res={"msg": "no"}, **data), **stats)
    assert collector.result().failures == ()


def test_unreachable_is_told_apart() -> None:
    collector, shown = played(event("runner_on_unreachable", "a", res={"msg": "timed out"}), dark={"a": 1})
    assert collector.result().failures[0].unreachable
    assert shown.ends[0][1] == "unreachable"


def test_merge_by_top_key() -> None:
    into: dict[str, Any] = {"list": [1], "map": {"a": 1, "b": 1}, "one": 1}
    merge(into, {"list": [2], "map": {"b": 2}, "one": 2})
    assert into == {"list": [1, 2], "map": {"a": 1, "b": 2}, "one": 2}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "no space"}, "no space"),
        ({"msg": "non-zero return code", "stderr": "E: broken", "stdout": "much"}, "E: broken"),
        (
            {"msg": "MODULE FAILURE\nSee stdout", "module_stderr": "/bin/sh: sudo: not found"},
            "/bin/sh: sudo: not found",
        ),
        ({"msg": "Task failed: Missing sudo password"}, "Missing sudo password"),
        ({"results": [{"msg": "fine"}, {"failed": True, "msg": "this one"}], "msg": "items"}, "this one"),
        ({"censored": "…"}, "the task handles a secret, so its output is hidden"),
        (
            {
                "msg": 'Task failed: Data could not be sent to remote host "10.0.0.1". Make sure this host can be '
                "reached over ssh: ops@10.0.0.1: Permission denied (publickey)."
            },
            "ops@10.0.0.1: Permission denied (publickey).",
        ),
        ({}, "no message"),
    ],
)
def test_message(result: dict[str, Any], message: str) -> None:
    assert message_of(result) == message


def test_first_line_skips_the_frame_that_ssh_draws() -> None:
    text = "@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
    assert first_line(text) == "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!"
