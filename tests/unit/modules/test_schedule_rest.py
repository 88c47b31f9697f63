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
    """What the module asks of Ansible: a command that ends well."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def run_command(self, words: list[str]) -> tuple[int, str, str]:
        self.asked.append(" ".join(words))
        return 0, "", ""


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
    ansible = Module()
    assert rest.go_on(ansible)
    assert ansible.asked == [
        f"systemctl start --no-block onprem-llm-schedule-{name}.service" for name in ("big", "tiny")
    ]
    assert not mark.exists()
    assert not rest.go_on(ansible)


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
