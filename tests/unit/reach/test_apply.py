"""The lock is let go whatever happens, and what went wrong first is what is said."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from onprem_llm import run_lock
from onprem_llm.commands import deploy
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, RefusedError
from onprem_llm.output import PlainProgress
from onprem_llm.plan_folder import write_folder
from onprem_llm.planning.types import Plan
from onprem_llm.run_events import RunResult
from onprem_llm.stop_signals import STOPS, no_stops, noted_stops

PLAN = Plan(based_on="0", gateway="g", deployment="tiny", verb="deploy", revision=1, model_yaml="")
HOSTS = Connection(Path("inventory.ini"))


class Lock:
    """Stands where the host's lock is; `fails` names actions that raise."""

    def __init__(self, **fails: BaseException) -> None:
        self.fails = fails
        self.asked: list[str] = []

    def __call__(self, action: str, who: str, gateway: str, connection: Connection) -> dict[str, object]:
        self.asked.append(action)
        if action in self.fails:
            raise self.fails[action]
        return {"acquired": True, "owner": who, "age": 0.0}


def work(error: BaseException | None) -> None:
    with run_lock.locked("g", "deploy tiny", HOSTS, PlainProgress()):
        if error:
            raise error


def test_the_lock_is_let_go_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Lock()
    monkeypatch.setattr(run_lock, "_lock", host)
    for error in (OnpremError("a step failed"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            work(error)
    assert host.asked == ["acquire", "release"] * 2


def test_a_ctrl_c_while_the_lock_is_taken_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Lock(acquire=KeyboardInterrupt())
    monkeypatch.setattr(run_lock, "_lock", host)
    with pytest.raises(KeyboardInterrupt):
        work(None)
    assert host.asked == ["acquire", "release"]


@pytest.fixture
def stopped_at_release(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bool]]]:
    """Every signal comes while the lock is let go, which notes signals as a run of Ansible does: (action, whether)."""

    def lock(action: str, who: str, gateway: str, connection: Connection) -> dict[str, object]:
        with noted_stops() as stopped:
            if action == "release":
                for number in STOPS:
                    signal.raise_signal(number)
            asked.append((action, stopped.is_set()))
        return {"acquired": True, "owner": who, "age": 0.0}

    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(run_lock, "_lock", lock)
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOPS}
    yield asked
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_second_ctrl_c_does_not_end_the_letting_go(stopped_at_release: list[tuple[str, bool]]) -> None:
    with pytest.raises(OnpremError, match="a step failed"):
        work(OnpremError("a step failed"))
    assert stopped_at_release == [("acquire", False), ("release", False)]
    for number in STOPS:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_a_first_ctrl_c_while_the_lock_is_let_go_ends_what_would_come_after(
    stopped_at_release: list[tuple[str, bool]],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(None)
    assert stopped_at_release == [("acquire", False), ("release", False)]


def test_what_is_started_where_no_stops_are_heard_can_still_be_ended() -> None:
    with no_stops(), subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
                                      stdout=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout
        child.stdout.readline()
        child.send_signal(signal.SIGINT)  # as a terminal does
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
        child.terminate()
        assert child.wait(20) == -signal.SIGTERM


def test_nobody_is_asked_anything_while_the_lock_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    asking: list[bool] = []

    def run(*_: object, **more: object) -> RunResult:
        asking.append(bool(more["asking"]))
        return RunResult(hosts=("g",), changed=(), failures=(), returned={"g": {"lock": {"acquired": True}}})

    monkeypatch.setattr(run_lock, "run", run)
    work(None)
    assert asking == [True, False]


def test_a_gateway_that_is_lost_is_said_and_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_lock, "_lock", Lock(release=OnpremError("g is unreachable")))
    with pytest.raises(OnpremError, match="a step failed"):
        work(OnpremError("a step failed"))
    capsys.readouterr()
    work(None)
    assert "g is unreachable. The next run needs --break-lock." in capsys.readouterr().err


def test_a_plan_with_nothing_to_do_is_refused_too_where_hosts_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*_: object) -> None:
        raise RefusedError("the hosts changed since this plan was made")

    write_folder(PLAN, tmp_path / "change")
    (tmp_path / "inventory.ini").write_text("here ansible_connection=local\n")
    monkeypatch.setattr(deploy, "refuse_if_moved", moved)
    words = ["--plan", str(tmp_path / "change"), "-i", str(tmp_path / "inventory.ini")]
    assert isinstance(CliRunner().invoke(deploy.command, words).exception, RefusedError)
