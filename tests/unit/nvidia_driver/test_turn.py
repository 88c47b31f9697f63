"""One at a time at a host's driver, and what the next one is told."""

import importlib.util
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.nvidia_driver.made_hosts import H100


def hold(driver: SimpleNamespace, words: str, ready: Any, over: Any) -> None:
    with driver.turn.turn(words):
        ready.set()
        over.wait(60)


@pytest.fixture
def other(driver: SimpleNamespace) -> Iterator[Any]:
    """Another process that is at work on the driver: 580.95.05."""
    context = multiprocessing.get_context("fork")
    ready, over = context.Event(), context.Event()
    process = context.Process(target=hold, args=(driver, "driver 580.95.05", ready, over))
    process.start()
    assert ready.wait(30)
    yield SimpleNamespace(pid=process.pid, over=over, join=process.join)
    process.kill()  # over.set() would wait for one that was killed
    process.join()


def test_who_comes_second_is_told_who_is_at_work(driver: SimpleNamespace, other: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(driver.turn, "PERIOD_S", 0)
    said = f"process {other.pid} (driver 580.95.05, for "
    assert str(driver.turn.at_work()).startswith(said)
    with pytest.raises(driver.needs.DriverError) as refused, driver.turn.turn("bootstrap"):
        raise AssertionError("two at once")
    assert str(refused.value).startswith(f"found that {said}")
    assert "Wait until it has ended, then run the same command again" in str(refused.value)
    assert str(driver.turn.at_work()).startswith(said)
    other.over.set()
    other.join()
    with driver.turn.turn("bootstrap"):
        pass


def test_nobody_is_at_work_where_it_was_killed(driver: SimpleNamespace, other: Any, turn_file: Path) -> None:
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert turn_file.read_text()
    assert driver.turn.at_work() is None


def test_nobody_was_ever_at_work(driver: SimpleNamespace) -> None:
    assert driver.turn.at_work() is None
    with driver.turn.turn("x"):
        pass
    assert driver.turn.at_work() is None


def test_a_look_is_not_in_the_way(driver: SimpleNamespace, monkeypatch: Any) -> None:
    """Two looks at the same time are not taken for work, and work that begins in the middle of a look goes on."""
    looks = []
    monkeypatch.setattr(driver.turn.time, "sleep", lambda _: looks.pop().close())
    with driver.turn.turn("x"):
        pass
    look = driver.turn.LOCK.open()
    assert driver.turn._taken(look, driver.turn.fcntl.LOCK_SH)
    assert driver.turn.at_work() is None
    looks.append(look)
    with driver.turn.turn("y"):
        assert not looks


LIBRARY = Path(__file__).resolve().parents[3] / "roles/nvidia_driver/library/nvidia_driver.py"


def test_bootstrap_begins_no_driver_in_the_middle_of_an_upgrade_that_was_broken_off(
    driver: SimpleNamespace, host: Any, monkeypatch: Any, other: Any
) -> None:
    spec = importlib.util.spec_from_file_location("nvidia_driver_in_turn", LIBRARY)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(driver.turn, "PERIOD_S", 0)
    monkeypatch.setattr(module.look, "facts", lambda: host(H100))
    done: list[str] = []
    monkeypatch.setattr(module.Driver, "_install", lambda *_: done.append("install"))
    options = {name: one.get("default") for name, one in module.OPTIONS.items()}
    assert f"found that process {other.pid} (driver 580.95.05" in module.answer(options, check_mode=False)["failure"]
    assert not done
    other.over.set()
    other.join()
    assert (module.answer(options, check_mode=False)["failure"], done) == ("", ["install"])
