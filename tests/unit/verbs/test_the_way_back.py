"""What is put back when a step fails, and what must stay."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onprem_llm import apply
from onprem_llm.errors import OnpremError
from onprem_llm.planning.types import Plan, Step
from onprem_llm.run_events import HostFailure, RunResult


def step(kind: Any, title: str, *undo: Step) -> Step:
    return Step(kind, title, {"lab-1": {}}, undo)


CLEAR = step("pending", "Write that revision 2 is taken back")
PLAN = Plan(
    "", "lab-1", "tiny", "deploy", 2, "",
    (
        step("pending", "Write that revision 2 begins", CLEAR),
        step("apply", "Replace tiny-0", step("restore", "Put the old tiny-0 back")),
        step("gateway", "Tell the gateway", step("gateway", "Tell the gateway as before")),
        step("record", "Write the book"),
    ),
)  # fmt: skip


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Return what carries PLAN out while some steps fail, and says which steps began."""

    def go(*failing: str) -> list[str]:
        begun: list[str] = []

        def run(*_: object, title: str = "", **__: object) -> RunResult:
            begun.append(title)
            bad = (HostFailure("lab-1", title, "no space left on device", False),) if title in failing else ()
            return RunResult(("lab-1",), {}, {}, bad)

        monkeypatch.setattr(apply, "run", run)
        monkeypatch.setattr(apply, "record_event", lambda *_: None)
        monkeypatch.setattr(apply, "write_orders", lambda *_: tmp_path)
        whatever: Any = None
        with pytest.raises(OnpremError):
            apply._Run(PLAN, tmp_path, whatever, whatever, {}).steps()
        return begun

    return go


def test_a_step_that_fails_takes_all_before_it_back(carried: Callable[..., list[str]]) -> None:
    back = ["Tell the gateway as before", "Put the old tiny-0 back", CLEAR.title]
    assert carried("Tell the gateway")[3:] == back


def test_the_new_revision_serves_on_where_the_book_could_not_be_written(carried: Callable[..., list[str]]) -> None:
    assert carried("Write the book")[-1] == "Write the book"


def test_a_revision_that_may_still_run_stays_under_way(carried: Callable[..., list[str]]) -> None:
    begun = carried("Tell the gateway", "Put the old tiny-0 back")
    assert begun[-1] == "Put the old tiny-0 back"
    assert CLEAR.title not in begun


def test_a_ctrl_c_that_is_pressed_twice_in_a_row_still_puts_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second one comes while the book is told of the first, before anybody was told what it would leave undone."""
    begun: list[str] = []

    def run(*_: object, title: str = "", **__: object) -> RunResult:
        begun.append(title)
        if title == "Tell the gateway":
            raise KeyboardInterrupt
        return RunResult(("lab-1",), {}, {}, ())

    def record_event(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(apply, "run", run)
    monkeypatch.setattr(apply, "record_event", record_event)
    monkeypatch.setattr(apply, "write_orders", lambda *_: tmp_path)
    whatever: Any = None
    with pytest.raises(KeyboardInterrupt):
        apply._Run(PLAN, tmp_path, whatever, whatever, {}).steps()
    assert begun[3:] == ["Tell the gateway as before", "Put the old tiny-0 back", CLEAR.title]


def test_a_disk_that_is_full_here_takes_it_back_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[str] = []

    def run(*_: object, title: str = "", **__: object) -> RunResult:
        begun.append(title)
        if title in {"Tell the gateway", "Put the old tiny-0 back"}:
            raise OSError(errno.ENOSPC, "No space left on device", "/tmp/run")
        return RunResult(("lab-1",), {}, {}, ())

    monkeypatch.setattr(apply, "run", run)
    monkeypatch.setattr(apply, "record_event", lambda *_: None)
    monkeypatch.setattr(apply, "write_orders", lambda *_: tmp_path)
    whatever: Any = None
    with pytest.raises(OnpremError, match=r"this machine: .*No space left on device.*could not be put back") as raised:
        apply._Run(PLAN, tmp_path, whatever, whatever, {}).steps()
    assert begun[3:] == ["Tell the gateway as before", "Put the old tiny-0 back"]
    assert "Put the old tiny-0 back: this machine: " in (raised.value.details or "")
