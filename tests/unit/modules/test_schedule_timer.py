"""The module that gives a host its part in a schedule: units, links, holds, and nothing left behind."""

import base64
import fcntl
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load

TEXTS = {"table.json": '{"order": []}\n', "timer": "[Timer]\nOnCalendar=Mon *-*-* 07:00:00\n"}
SERVICE = "[Service]\nExecStart=/usr/bin/python3 program tiny\n"
UNIT = "onprem-llm-schedule-tiny"


class Systemctl:
    """What systemd was asked; a unit is active once it was started."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.active: set[str] = set()
        self.stale = False

    def __call__(self, *words: str) -> tuple[int, str]:
        verb, unit = words[0], words[-1]
        if verb == "is-active":
            return (0 if unit in self.active else 3), ""
        if verb == "show":
            return 0, f"NeedDaemonReload={'yes' if self.stale else 'no'}"
        self.asked.append(" ".join(words))
        (self.active.discard if verb == "stop" else self.active.add)(unit)
        return 0, ""


@pytest.fixture
def timer(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("schedule/schedule_timer")
    for name in ("ROOT", "RUN", "UNITS"):
        monkeypatch.setattr(module, name, tmp_path / name)
    (tmp_path / "UNITS").mkdir()
    monkeypatch.setattr(module, "systemctl", Systemctl())
    monkeypatch.setattr(module, "check_calendars", lambda text: None)
    return module


def params(state: str = "present", **changes: Any) -> dict[str, Any]:
    contents = {name: base64.b64encode(text.encode()).decode() for name, text in TEXTS.items()}
    return {
        "deployment": "tiny", "state": state, "contents": contents, "service": SERVICE, "seconds": 100, "planned": {},
        **changes,
    }  # fmt: skip


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def test_it_is_written_once_and_started(timer: Any, tmp_path: Path) -> None:
    assert timer.run(params(), False)
    assert left(tmp_path) == [
        "ROOT/tiny/table.json",
        f"UNITS/multi-user.target.wants/{UNIT}.service",
        f"UNITS/{UNIT}.service",
        f"UNITS/{UNIT}.timer",
        f"UNITS/timers.target.wants/{UNIT}.timer",
    ]
    assert timer.systemctl.asked == [f"restart {UNIT}.timer", f"restart --no-block {UNIT}.service"]
    assert not timer.run(params(), False)
    assert len(timer.systemctl.asked) == 2


def test_other_times_reload_systemd_and_restart_the_timer(timer: Any) -> None:
    timer.run(params(), False)
    timer.systemctl.asked.clear()
    timer.systemctl.stale = True
    text = TEXTS["timer"].replace("07", "08")
    other = {**params()["contents"], "timer": base64.b64encode(text.encode()).decode()}
    assert timer.run(params(contents=other), False)
    assert timer.systemctl.asked[:2] == ["daemon-reload", f"restart {UNIT}.timer"]


def test_a_timer_that_somebody_stopped_waits_again(timer: Any) -> None:
    timer.run(params(), False)
    timer.systemctl.active.clear()
    timer.systemctl.asked.clear()
    assert timer.run(params(), False)
    assert timer.systemctl.asked == [f"restart {UNIT}.timer", f"restart --no-block {UNIT}.service"]


def test_a_hold_waits_for_what_was_begun_and_counts_for_a_time(
    timer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer.run(params(), False)
    timer.run(params("held"), False)
    until = float((tmp_path / "RUN/tiny.hold").read_text())
    assert time.time() + 90 < until < time.time() + 101
    monkeypatch.setattr(sys.modules["ansible.module_utils.onprem_llm_schedule_lock"], "WAIT_S", 0.5)
    with (tmp_path / "RUN/tiny.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(timer.TimerError, match="still starting or stopping"):
            timer.run(params("held"), False)
    timer.systemctl.asked.clear()
    timer.run(params("released"), False)
    assert timer.systemctl.asked == [f"start --no-block {UNIT}.service"]
    assert not (tmp_path / "RUN/tiny.hold").exists()
    timer.run(params("released"), False)
    assert len(timer.systemctl.asked) == 1


def test_a_start_that_fails_leaves_the_hold_for_the_next_try(timer: Any, tmp_path: Path) -> None:
    timer.run(params(), False)
    timer.run(params("held"), False)
    well, timer.systemctl = timer.systemctl, lambda *words: (1, "Unit is masked.")
    with pytest.raises(timer.TimerError, match=f"start --no-block {UNIT}.service failed: Unit is masked"):
        timer.run(params("released"), False)
    timer.systemctl = well
    well.asked.clear()
    timer.run(params("released"), False)
    assert well.asked == [f"start --no-block {UNIT}.service"]
    assert not (tmp_path / "RUN/tiny.hold").exists()


def test_who_holds_says_for_how_long(timer: Any, tmp_path: Path) -> None:
    with pytest.raises(timer.TimerError, match="found seconds: 0, expected 1 or more"):
        timer.run(params("held", seconds=0), False)
    assert not (tmp_path / "RUN").exists()


def test_a_hold_is_refused_where_the_clock_has_switched_others_off_since_the_plan(timer: Any, tmp_path: Path) -> None:
    timer.run(params(), False)
    (tmp_path / "ROOT/tiny/state.json").write_text(json.dumps({"off": ["tiny-2", "tiny-1"]}))
    timer.run(params("held", planned={"off": ["tiny-1", "tiny-2"]}), False)
    assert (tmp_path / "RUN/tiny.hold").exists()
    timer.systemctl.asked.clear()
    with pytest.raises(timer.TimerError, match="found tiny-2, tiny-1 off by the clock, expected none"):
        timer.run(params("held", planned={"off": []}), False)
    assert not (tmp_path / "RUN/tiny.hold").exists()
    assert timer.systemctl.asked == [f"start --no-block {UNIT}.service"]


def test_nothing_is_left_of_one_that_goes(timer: Any, tmp_path: Path) -> None:
    timer.run(params(), False)
    timer.run(params("held"), False)
    timer.systemctl.asked.clear()
    (tmp_path / "ROOT/.resting").write_text("0\n")
    assert timer.run(params("absent"), False)
    assert timer.systemctl.asked == [f"stop {UNIT}.timer", f"stop {UNIT}.service"]
    assert not left(tmp_path)
    assert not timer.run(params("absent"), False)


def test_a_calendar_that_the_host_does_not_take_changes_nothing(
    load: Load, timer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = load("schedule/schedule_timer")
    monkeypatch.setattr(timer, "check_calendars", fresh.check_calendars)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemd-analyze").write_text("#!/bin/sh\necho 'Failed to parse calendar: Mars/Base'; exit 1\n")
    (tmp_path / "bin/systemd-analyze").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    with pytest.raises(fresh.TimerError, match="install tzdata on this host"):
        timer.run(params(), False)
    assert left(tmp_path) == ["bin/systemd-analyze"]


def test_a_name_that_is_a_path_is_refused(timer: Any) -> None:
    with pytest.raises(timer.TimerError, match="cannot be the name"):
        timer.run(params("absent", deployment="../x"), False)


def test_a_table_that_cannot_be_written_leaves_no_hold(
    timer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer.run(params(), False)
    timer.run(params("held"), False)

    def refused(text: str) -> None:
        raise timer.TimerError("no such time zone")

    monkeypatch.setattr(timer, "check_calendars", refused)
    timer.systemctl.asked.clear()
    with pytest.raises(timer.TimerError, match="no such time zone"):
        timer.run(params(), False)
    assert not (tmp_path / "RUN/tiny.hold").exists()
    assert timer.systemctl.asked == [f"start --no-block {UNIT}.service"]
