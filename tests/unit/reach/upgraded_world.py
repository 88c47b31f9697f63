"""A fleet on its way to another driver, without hosts: what is done to it, in order, and what it answers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import recorded_facts as made

from onprem_llm import upgrade_look
from onprem_llm.commands import upgrade_driver as command
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError
from onprem_llm.look import View
from onprem_llm.output import PlainProgress
from onprem_llm.planning.driver_serving import PURPOSE
from onprem_llm.planning.driver_upgrade import Seen, plan_upgrade
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.spec.site import parse_site
from onprem_llm.upgrading import Outcome, Prepared, carry_out

OLD, NEW = "550.163.01", "580.95.05"

CONNECTION = Connection(Path("/i"))
Answer = Callable[[str, Mapping[str, Any]], RunResult]


def gpus(host: str, *numbers: int) -> dict[str, Any]:
    return {"gpus": [{"uuid": f"GPU-{host}-{n}", "bus_id": f"0000:{n}:00.0", "name": "H100"} for n in numbers]}


def said(host: str, version: str = NEW, **more: Any) -> dict[str, Any]:
    return {"driver_upgrade": {"loaded": version}, "gpu_check": gpus(host, 0, 1), "findings": [], "reboot": [], **more}


def error_of(check: str) -> dict[str, str]:
    return {"role": "gpu_check", "check": check, "level": "error", "found": f"bad {check}", "expected": "good",
            "remedy": "Mend it."}  # fmt: skip


class World:
    """Three hosts with two replicas on two of them, and what is done to them, in order."""

    def __init__(self) -> None:
        facts = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=1, gateway=n == 1) for n in (1, 2, 3)}
        text = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000) + "replicas: 2\n"
        self.facts = made.applied(made.planned(facts, made.deployment(text)), facts)
        self.happened: list[str] = []
        self.answers: dict[str, list[Any]] = {}
        self.looks: list[Callable[[], None]] = []
        self.rotations: dict[str, list[Callable[[], None]]] = {}

    def rotate(self, plan: str, *_: Any) -> None:
        self.happened.append(plan)
        if self.rotations.get(plan):
            self.rotations[plan].pop(0)()

    def look(self, *_: Any, **__: Any) -> View:
        if self.looks:
            self.looks.pop(0)()
        return View(made.current(self.facts), (), made.SALT)

    def run(self, playbook: str, title: str, orders: Mapping[str, Any], *_: Any) -> RunResult:
        (host,) = orders
        order = orders[host]
        assert (playbook, order["version"]) == ("upgrade_driver.yml", NEW)
        self.happened.append(f"{'reboot' if order['reboot'] else 'upgrade'} {host}")
        answers = self.answers.get(host) or [said(host)]
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, HostFailure):
            return RunResult((host,), {}, {}, (answer,))
        return RunResult((host,), {host: answer}, {}, ())

    @contextmanager
    def locked(self, gateway: str, *_: Any, break_lock: bool, **__: Any) -> Iterator[None]:
        self.happened.append(f"{'break ' if break_lock else ''}lock {gateway}")
        yield
        self.happened.append("unlock")

    def drained(self, *hosts: str, purpose: str | None = None) -> None:
        mark = {"state": "drained", "by": "me@here", "purpose": purpose}
        self.facts["lab-1"]["book"]["hosts"] = dict.fromkeys(hosts, mark)

    def healthy(self, project: str, health: str) -> None:
        for state in self.facts.values():
            if project in state["projects"]:
                state["projects"][project]["containers"][0]["health"] = health


class Rotation(str):
    """A plan to drain a host or let it in, and what it would warn of."""

    warnings: tuple[str, ...] = ()


def prepared(world: World, **changes: Any) -> Prepared:
    hosts = list(world.facts)
    old = {"gpus": 1, "loaded": OLD, "installed": OLD, "then": NEW, "kind": "open", **changes}
    plan = plan_upgrade("580", [Seen(host, **old) for host in hosts], made.current(world.facts))
    return Prepared(plan, parse_site({}, "x"), {host: said(host, OLD) for host in hosts})


def taken(world: World, *, reboots: tuple[str, ...] = (), **changes: Any) -> Outcome:
    return carry_out(prepared(world, **changes), CONNECTION, PlainProgress(), reboots=reboots)


CUT_OFF = [OnpremError("lab-2: the book could not be written"), KeyboardInterrupt()]


def half_drained(world: World, error: BaseException, *, book: bool, gateway: bool) -> None:
    def half() -> None:
        if book:
            world.drained("lab-2", purpose=PURPOSE)
        if gateway:
            world.facts["lab-1"]["gateway"]["servers"]["tiny/tiny-1"]["admin"] = "drain"
        raise error

    world.rotations["drain lab-2"] = [half]


class Looks:
    """What hosts say of their drivers, look after look: who is at work on lab-2's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world: World, *at_work: str) -> None:
        self.answers, self.asked = list(at_work), []
        monkeypatch.setattr(upgrade_look, "look_whole", world.look)
        monkeypatch.setattr(upgrade_look, "run_orders", self.run)
        monkeypatch.setattr(upgrade_look.time, "sleep", lambda _: None)

    def run(self, playbook: str, title: str, orders: Mapping[str, Any], *_: Any) -> RunResult:
        assert playbook == "upgrade_look.yml"
        self.asked.append(",".join(orders))
        who = self.answers.pop(0) if self.answers else ""
        driver = {"gpus": 1, "loaded": OLD, "installed": OLD, "then": NEW, "kind": "open"}
        found = {host: {"driver_upgrade": {**driver, "at_work": who if host == "lab-2" else None}} for host in orders}
        return RunResult(tuple(orders), found, {}, ())


WHO = "process 7 (driver 580.95.05, for 12 s)"


class Asked:
    """The command on a world: its plan, what was asked, what was carried out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ready: Prepared, outcome: Outcome, *, terminal: bool) -> None:
        self.questions: list[str] = []
        self.reboots: list[str] | None = None

        def carried(*_: Any, reboots: list[str], **__: Any) -> Outcome:
            self.reboots = list(reboots)
            return outcome

        def agree(question: str, *, yes: bool) -> None:
            self.questions.append(f"{question.strip()} {yes}")

        monkeypatch.setattr(command, "prepare", lambda *_, **__: ready)
        monkeypatch.setattr(command, "carry_out", carried)
        monkeypatch.setattr(command.output, "agree", agree)
        monkeypatch.setattr(command.sys.stdin, "isatty", lambda: terminal, raising=False)
