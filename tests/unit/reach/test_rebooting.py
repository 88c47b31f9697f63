"""Reboots for a driver: who may be rebooted, in which order, what is around each, and what ends them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onprem_llm import rebooting
from onprem_llm.bootstrapping import Prepared, Report, reasons_of
from onprem_llm.commands import bootstrap as command
from onprem_llm.connection import Connection
from onprem_llm.probe import parse_current
from onprem_llm.rebooting import in_order, roll
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.spec.site import parse_site

WHY = "the driver nouveau has the GPUs"
CONNECTION = Connection(Path("/i"))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in order, at hosts of which b has a replica."""
    happened: list[str] = []
    book = {"gateway": True, "deployments": {}}
    current = parse_current({"a": {"schema": 2, "book": book}, "b": {"schema": 2}, "c": {"schema": 2}}, ())

    def run(playbook: str, *_: Any, hosts: list[str], **__: Any) -> RunResult:
        happened.append(f"{playbook} {' '.join(hosts)}")
        return RunResult(tuple(hosts), {hosts[0]: {"reboot": []}}, {}, ())

    def plan(host: str, *_: Any, back: bool, **__: Any) -> str:
        return f"{'let in' if back else 'drain'} {host}"

    monkeypatch.setattr(rebooting, "look_whole", lambda *_: SimpleNamespace(current=current))
    monkeypatch.setattr(rebooting, "recorded_on", lambda _, host: {"tiny": ["tiny-0"]} if host == "b" else {})
    monkeypatch.setattr(rebooting, "plan_rotation", plan)
    monkeypatch.setattr(rebooting, "apply", lambda plan, *_: happened.append(plan))
    monkeypatch.setattr(rebooting, "run", run)
    return happened


def rolled(hosts: list[str]) -> rebooting.Rebooted:
    return roll(hosts, {host: {} for host in hosts}, CONNECTION, SimpleNamespace())  # type: ignore[arg-type]


def test_one_after_the_other_and_what_serves_is_drained(told: list[str]) -> None:
    assert rolled(["c", "b"]).hosts == ("c", "b")
    assert told == ["reboot.yml c", "drain b", "reboot.yml b", "let in b"]


def test_a_host_that_a_person_has_drained_stays_so(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    marked = SimpleNamespace(current=SimpleNamespace(marks={"b": "drained"}, gateway=SimpleNamespace(book={})))
    monkeypatch.setattr(rebooting, "look_whole", lambda *_: marked)
    assert rolled(["b"]).hosts == ("b",)
    assert told == ["reboot.yml b"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (RunResult(("b",), {}, {}, (HostFailure("b", "Reboot", "Timed out waiting", True),)), "Timed out waiting"),
        (RunResult(("b",), {"b": {"reboot": [WHY]}}, {}, ()), f"found after the reboot that {WHY}"),
    ],
    ids=["does not come back", "comes back without its driver"],
)
def test_the_first_that_is_not_well_ends_it(
    told: list[str], monkeypatch: pytest.MonkeyPatch, result: RunResult, said: str
) -> None:
    monkeypatch.setattr(rebooting, "run", lambda *_, **__: result)
    done = rolled(["b", "c", "a"])
    assert done.hosts == ()
    assert told == ["drain b"]
    assert done.failure is not None
    assert said in done.failure.message
    assert "c, a were not rebooted" in done.failure.message
    assert "onprem-llm host undrain b" in done.failure.message


def test_gateways_come_last() -> None:
    assert in_order(["a", "b", "c"], ["a"]) == ["b", "c", "a"]


def test_who_wants_a_reboot() -> None:
    result = RunResult(("a", "b", "c"), {"a": {"reboot": [WHY]}, "b": {"reboot": []}, "c": {}}, {}, ())
    assert reasons_of(result) == {"a": (WHY,)}


@pytest.mark.parametrize(
    ("policy", "yes", "terminal", "answer", "allowed"),
    [
        ("never", False, True, True, False),
        ("never", True, True, True, False),
        ("auto", True, False, False, True),
        ("auto", False, True, False, True),
        ("ask", False, True, True, True),
        ("ask", False, True, False, False),
        ("ask", True, True, True, False),  # it agrees to bootstrap, not to this
        ("ask", False, False, True, False),
    ],
)
def test_leave_to_reboot(
    monkeypatch: pytest.MonkeyPatch, policy: str, yes: bool, terminal: bool, answer: bool, allowed: bool
) -> None:
    prepared = Prepared(Report(("a",), reboots={"a": (WHY,)}), parse_site({"reboot": policy}, "x"), {})
    monkeypatch.setattr(command.sys, "stdin", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr(command.output, "confirm", lambda *_, **__: answer)
    assert command._may_reboot(prepared, yes=yes, as_json=False) is allowed


def test_what_is_left_to_a_person_is_said() -> None:
    text = command.ending(Report(("a",), reboots={"a": (WHY,)}))
    assert f"a wants a reboot before its GPUs can be used: {WHY}." in text
    assert "onprem_llm_site.reboot: auto" in text


def test_a_report_after_the_reboots(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = {"role": "nvidia_driver", "check": "nvidia_driver", "level": "ok", "found": "it runs", "expected": "any"}
    done = rebooting.Rebooted(("b",), (RunResult(("b",), {"b": {"findings": [fine]}}, {}, ()),))
    asked: list[list[str]] = []

    def rolls(hosts: list[str], *_: Any) -> rebooting.Rebooted:
        asked.append(hosts)
        return done

    monkeypatch.setattr(rebooting, "roll", rolls)
    report = Report(("a", "b"), gateway="a", reboots={"a": (WHY,), "b": (WHY,)})
    rebooting.reboot(Prepared(report, parse_site({}, "x"), {}), CONNECTION, SimpleNamespace())  # type: ignore[arg-type]
    assert asked == [["b", "a"]]
    assert report.reboots == {"a": (WHY,)}
    assert report.findings["b"][0].found == "it runs"
