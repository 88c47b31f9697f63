"""The module by which all schedules of a host rest while it is drained."""

import fcntl
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load


class Module:
    """What the module asks of Ansible: a command, and what the mark says while it runs."""

    def __init__(self, mark: Path, refused: str = "") -> None:
        self.mark, self.refused = mark, refused
        self.asked: list[str] = []
        self.marked: list[float] = []

    def run_command(self, words: list[str]) -> tuple[int, str, str]:
        self.asked.append(" ".join(words))
        self.marked.append(float(self.mark.read_text()) - time.time())
        return (1, "", "Unit is masked.\n") if self.refused and self.refused in words[-1] else (0, "", "")


STARTS = [f"systemctl start --no-block onprem-llm-schedule-{name}.service" for name in ("big", "tiny")]


@pytest.fixture
def rest(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("schedule/schedule_rest")
    for name in ("ROOT", "RUN"):
        monkeypatch.setattr(module, name, tmp_path / name)
    for name in ("big", "tiny"):
        (tmp_path / "ROOT" / name).mkdir(parents=True)
        (tmp_path / "ROOT" / name / "table.json").write_text("{}")
    return module


def test_it_counts_for_a_time_or_until_it_is_taken_away(rest: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ROOT" / ".resting"
    assert rest.rest("briefly", 100)
    assert time.time() + 90 < float(mark.read_text()) < time.time() + 101
    assert rest.rest("drained", 100)
    assert mark.read_text() == "0\n"
    assert not rest.rest("drained", 100)
    ansible = Module(mark)
    assert rest.go_on(ansible, 100)
    assert ansible.asked == STARTS
    assert not mark.exists()
    assert not rest.go_on(ansible, 100)
    assert ansible.asked == STARTS


def test_a_start_that_fails_is_made_up_for_by_the_next_try(rest: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ROOT" / ".resting"
    rest.rest("drained", 0)
    with pytest.raises(rest.RestError, match="found seconds: 0, expected 1 or more"):
        rest.go_on(Module(mark), 0)
    with pytest.raises(rest.RestError, match=r"start onprem-llm-schedule-tiny.service failed: Unit is masked.; on the"):
        rest.go_on(Module(mark, refused="tiny"), 100)
    ansible = Module(mark)
    assert rest.go_on(ansible, 100)
    assert ansible.asked == STARTS
    # What is started waits while the mark counts, under one without an end it would not.
    assert all(90 < seconds < 101 for seconds in ansible.marked)
    assert not mark.exists()


def test_it_comes_back_once_what_was_begun_is_done(rest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["ansible.module_utils.onprem_llm_schedule_lock"], "WAIT_S", 0.5)
    (tmp_path / "RUN").mkdir()
    with (tmp_path / "RUN/tiny.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(rest.RestError, match="tiny is still starting or stopping"):
            rest.rest("drained", 100)
    assert (tmp_path / "ROOT" / ".resting").exists()


def test_a_host_without_schedules_keeps_the_mark_for_those_to_come(rest: Any, tmp_path: Path) -> None:
    rest.ROOT = tmp_path / "nothing" / "here"
    rest.rest("drained", 100)
    assert (rest.ROOT / ".resting").read_text() == "0\n"
