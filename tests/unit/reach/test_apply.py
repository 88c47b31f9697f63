"""The lock is let go whatever happens, and what went wrong first is what is said."""

import signal
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
from onprem_llm.stop_signals import noted_stops

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


def test_a_second_ctrl_c_does_not_end_the_letting_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run of Ansible does, the lock's notes signals, and would end for one."""

    def lock(action: str, who: str, gateway: str, connection: Connection) -> dict[str, object]:
        with noted_stops() as stopped:
            if action == "release":
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.raise_signal(number)
            asked.append((action, stopped.is_set()))
        return {"acquired": True, "owner": who, "age": 0.0}

    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(run_lock, "_lock", lock)
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(OnpremError, match="a step failed"):
            work(OnpremError("a step failed"))
        assert asked == [("acquire", False), ("release", False)]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
