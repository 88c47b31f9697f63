"""What a change is planned on: every host, or those that a person left out knowingly."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded_facts as made

from onprem_llm import look
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, UnreachableError
from onprem_llm.look import gateway_of, look_whole
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.ssh import Route

HERE = Connection(Path("/inventory.ini"))


class Hosts:
    """lab-1 (the gateway), lab-2 and lab-3, as Ansible would tell of them; some are off."""

    def __init__(
        self, off: Sequence[str] = (), broken: Sequence[str] = (), marks: dict[str, str] | None = None
    ) -> None:
        self.facts = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=2, gateway=n == 1) for n in (1, 2, 3)}
        if marks:
            hosts = {name: {"state": state, "by": None, "at": None} for name, state in marks.items()}
            self.facts["lab-1"]["book"]["hosts"] = hosts
        self.off, self.broken, self.asked = off, broken, 0
        self.group: tuple[str, ...] = ()

    def run(self, playbook: str, connection: Connection, *, hosts: Sequence[str] | None = None, **_: Any) -> RunResult:
        assert playbook == "probe.yml"
        self.asked += 1
        names = tuple(hosts or (connection.limit.split(",") if connection.limit else self.facts))
        bad = [name for name in names if name in (*self.off, *self.broken)]
        failures = tuple(HostFailure(name, "Look", "no route", unreachable=name in self.off) for name in bad)
        returned = {name: {"probe": self.facts[name]} for name in names if name not in bad}
        return RunResult(names, returned, {}, failures)

    def routes(self, _: Connection) -> dict[str, Route]:
        ways = {name: Route(name, False, name, None, None, None, ()) for name in self.facts}
        return ways | {name: replace(ways[name], groups=("gateway",)) for name in self.group}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(look, "note", said.append)
    return said


def use(monkeypatch: pytest.MonkeyPatch, hosts: Hosts) -> Hosts:
    monkeypatch.setattr(look, "run", hosts.run)
    monkeypatch.setattr(look, "routes", hosts.routes)
    return hosts


def names(current: Any) -> list[str]:
    return [host.name for host in current.hosts]


def with_(**changes: Any) -> Connection:
    return Connection(Path("/inventory.ini"), **changes)


def test_a_silent_host_is_an_error_that_names_the_way_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Hosts(off=["lab-2"]))
    with pytest.raises(UnreachableError, match="lab-2") as error:
        look_whole(HERE)
    assert "--skip-unreachable" in (error.value.hint or "")


def test_it_can_be_left_out_and_is_named_once(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    use(monkeypatch, Hosts(off=["lab-2"]))
    view = look_whole(with_(skip_unreachable=True))
    assert names(view.current) == ["lab-1", "lab-3"]
    assert view.current.unreachable == ("lab-2",)
    assert len(told) == 1
    assert "lab-2" in told[0]
    again = look_whole(with_(skip_unreachable=True), again=True)
    assert again.current.digest() == view.current.digest()
    assert len(told) == 1


def test_a_host_that_answers_and_fails_is_never_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Hosts(broken=["lab-2"]))
    with pytest.raises(OnpremError, match="lab-2") as error:
        look_whole(with_(skip_unreachable=True))
    assert "--skip-unreachable" not in (error.value.hint or "")


@pytest.mark.parametrize(("state", "fine"), [("lost", True), ("removed", True), ("drained", False)])
def test_a_host_that_the_book_calls_gone_need_not_answer(
    monkeypatch: pytest.MonkeyPatch, told: list[str], state: str, fine: bool
) -> None:
    use(monkeypatch, Hosts(off=["lab-2"], marks={"lab-2": state}))
    if fine:
        assert look_whole(HERE).current.unreachable == ("lab-2",)
    else:
        with pytest.raises(UnreachableError):
            look_whole(HERE)


def test_a_host_that_is_being_declared_lost_need_not_answer(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    use(monkeypatch, Hosts(off=["lab-2"]))
    assert look_whole(with_(may_be_silent=("lab-2",))).current.unreachable == ("lab-2",)


def test_without_the_gateway_nothing_is_changed(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    use(monkeypatch, Hosts(off=["lab-1"]))
    with pytest.raises(UnreachableError, match="gateway") as error:
        gateway_of(look_whole(with_(skip_unreachable=True)))
    assert "restore" in (error.value.hint or "")


def test_a_limit_leaves_the_others_alone_but_never_the_gateway(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    hosts = use(monkeypatch, Hosts(off=["lab-2"]))
    view = look_whole(with_(limit="lab-3"))
    assert names(view.current) == ["lab-1", "lab-3"]
    assert view.current.unreachable == view.current.left_out == ("lab-2",)
    assert gateway_of(view).name == "lab-1"
    assert told == []
    assert hosts.asked == 2


def grouped(hosts: Hosts) -> Hosts:
    hosts.group = ("lab-1", "lab-2")
    return hosts


def known_by_the_first(hosts: Hosts) -> Hosts:
    gateway = {"running": True, "error": None, "servers": {}, "peers": ["10.0.0.3"]}
    hosts.facts["lab-1"]["gateway"] = gateway
    return hosts


@pytest.mark.parametrize("told_by", [grouped, known_by_the_first])
def test_a_silent_second_gateway_is_no_host_that_a_limit_leaves_out(
    monkeypatch: pytest.MonkeyPatch, told: list[str], told_by: Any
) -> None:
    use(monkeypatch, told_by(Hosts(off=["lab-2"])))
    with pytest.raises(UnreachableError, match="lab-2"):
        look_whole(with_(limit="lab-3"))
    view = look_whole(with_(limit="lab-3", skip_unreachable=True))
    assert (view.current.unreachable, view.current.left_out) == (("lab-2",), ())
    assert [one.host for one in view.failures] == ["lab-2"]
    assert "lab-2" in told[0]


def test_nor_one_that_the_book_calls_lost(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    use(monkeypatch, grouped(Hosts(off=["lab-2"], marks={"lab-2": "lost"})))
    assert look_whole(with_(limit="lab-3")).current.unreachable == ("lab-2",)
    assert told == []


def test_a_silent_gateway_host_outside_of_the_limit_is_named(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    use(monkeypatch, Hosts(off=["lab-1"]))
    with pytest.raises(UnreachableError, match="lab-1"):
        look_whole(with_(limit="lab-3"))
    with pytest.raises(UnreachableError, match="no host that answered is the gateway") as error:
        gateway_of(look_whole(with_(limit="lab-3", skip_unreachable=True)))
    assert "lab-1" in (error.value.details or "")
