"""Hosts' turns on the way to another driver: what is around each, what ends them, and how the fleet is left then."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import recorded_facts as made
from click.testing import CliRunner

from onprem_llm import upgrading
from onprem_llm.checks.after_upgrade import trouble
from onprem_llm.commands import bootstrap as bootstrap_command
from onprem_llm.commands import upgrade_driver as command
from onprem_llm.connection import Connection
from onprem_llm.errors import ExitCode, InvalidError, OnpremError, RefusedError, UsageError
from onprem_llm.look import View
from onprem_llm.output import PlainProgress
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
    def locked(self, gateway: str, *_: Any, **__: Any) -> Iterator[None]:
        self.happened.append(f"lock {gateway}")
        yield
        self.happened.append("unlock")

    def drained(self, *hosts: str) -> None:
        self.facts["lab-1"]["book"]["hosts"] = {host: {"state": "drained", "by": "me@here"} for host in hosts}

    def healthy(self, project: str, health: str) -> None:
        for state in self.facts.values():
            if project in state["projects"]:
                state["projects"][project]["containers"][0]["health"] = health


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    one = World()

    def rotation(host: str, *_: Any, back: bool, **__: Any) -> str:
        return f"{'let in' if back else 'drain'} {host}"

    monkeypatch.setattr(upgrading, "look_whole", one.look)
    monkeypatch.setattr(upgrading, "_run", one.run)
    monkeypatch.setattr(upgrading, "locked", one.locked)
    monkeypatch.setattr(upgrading, "plan_rotation", rotation)
    for name in ("apply", "carry"):
        monkeypatch.setattr(upgrading, name, one.rotate)
    monkeypatch.setattr(upgrading, "record_event", lambda event, *_: one.happened.append(event["message"]))
    monkeypatch.setattr(upgrading.time, "sleep", lambda _: None)
    return one


def prepared(world: World, **changes: Any) -> Prepared:
    hosts = list(world.facts)
    old = {"gpus": 1, "loaded": OLD, "installed": OLD, "then": NEW, "kind": "open", **changes}
    plan = plan_upgrade("580", [Seen(host, **old) for host in hosts], made.current(world.facts))
    return Prepared(plan, parse_site({}, "x"), {host: said(host, OLD) for host in hosts})


def taken(world: World, *, reboots: tuple[str, ...] = (), **changes: Any) -> Outcome:
    return carry_out(prepared(world, **changes), CONNECTION, PlainProgress(), reboots=reboots)


def test_one_after_the_other_each_drained_and_let_in_again_before_the_next(world: World) -> None:
    outcome = taken(world)
    assert outcome.states == {"lab-3": "upgraded", "lab-2": "upgraded", "lab-1": "upgraded"}
    assert outcome.error is None
    turn = "lock lab-1|drain {0}|upgrade {0}|unlock|let in {0}|{0}: 550.163.01 -> 580.95.05"
    assert "|".join(world.happened) == "|".join(
        [turn.format("lab-3").replace("drain lab-3|", "").replace("let in lab-3|", ""), turn.format("lab-2"),
         turn.format("lab-1")]
    )  # fmt: skip


def test_a_host_that_a_person_has_drained_stays_so(world: World) -> None:
    world.facts["lab-1"]["book"]["hosts"] = {"lab-3": {"state": "drained"}}
    outcome = taken(world)
    assert not [one for one in world.happened if one in ("drain lab-3", "let in lab-3")]
    assert outcome.drained == ["lab-3"]
    assert "Still drained, as before: lab-3" in command.ending(prepared(world).plan, outcome)


def test_no_turn_takes_the_last_replica_while_a_host_that_has_another_is_drained(world: World) -> None:
    """A first run left lab-2 drained; the same command takes it up, and must not go on to lab-1 then."""
    world.drained("lab-2")
    ready = prepared(world)
    assert [turn.host for turn in ready.plan.hosts][-1] == "lab-1"
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    assert (outcome.states["lab-2"], outcome.states["lab-1"]) == ("upgraded", "waiting")
    assert "upgrade lab-1" not in world.happened
    assert "drain lab-1" not in world.happened
    assert outcome.drained == ["lab-2"]
    assert outcome.error is not None
    assert "lab-1: found that lab-2 is drained, which has tiny too, expected tiny in rotation there" in str(
        outcome.error
    )
    assert str(outcome.error.hint).startswith("onprem-llm host undrain lab-2; then run the same command again")


def test_a_second_run_says_what_the_first_one_left_drained(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.drained("lab-2")
    ready = prepared(world, loaded=NEW, installed=NEW, done=True)
    Asked(monkeypatch, ready, Outcome(), terminal=False)
    for check in (False, True):
        command.upgrade_driver("580", CONNECTION, check=check, yes=False, as_json=False)
        assert "lab-2 is drained: it gets no requests (onprem-llm host undrain lab-2)" in capsys.readouterr().out
    command.upgrade_driver("580", CONNECTION, check=False, yes=False, as_json=True)
    assert '"drained": [\n    "lab-2"\n  ]' in capsys.readouterr().out


def test_a_run_that_would_take_the_last_replica_is_refused_before_it_asks(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    world.drained("lab-2")
    seen = {"gpus": 1, "loaded": OLD, "installed": OLD, "then": NEW, "kind": "open"}
    there = Seen("lab-2", 1, NEW, NEW, NEW, "open", done=True)
    plan = plan_upgrade("580", [Seen("lab-1", **seen), there], made.current(world.facts))  # type: ignore[arg-type]
    asked = Asked(monkeypatch, Prepared(plan, parse_site({}, "x"), {}), Outcome(), terminal=True)
    with pytest.raises(InvalidError, match="lab-2 is drained, and tiny would have no replica in lab-1's turn"):
        command.upgrade_driver("580", CONNECTION, check=False, yes=True, as_json=False)
    assert (asked.questions, asked.reboots) == ([], None)


def test_the_first_bad_host_ends_it_drained_and_the_rest_is_untouched(world: World) -> None:
    why = "driver 580.95.05 is installed and does not load: found Secure Boot refuses the module. Enroll the key."
    world.answers["lab-2"] = [HostFailure("lab-2", "Fail", why, unreachable=False)]
    outcome = taken(world)
    assert outcome.states == {"lab-3": "upgraded", "lab-2": "failed"}
    assert outcome.drained == ["lab-2"]
    assert "upgrade lab-1" not in world.happened
    assert "let in lab-2" not in world.happened
    assert outcome.error is not None
    assert why in str(outcome.error.details)
    assert "Upgraded: lab-3. lab-2 is drained, and gets no requests. Not touched: lab-1." in str(outcome.error.details)
    assert "run the same command again" in str(outcome.error.hint)
    assert "onprem-llm host undrain lab-2" in str(outcome.error.hint)


def test_a_bad_canary_leaves_all_others_as_they_were(world: World) -> None:
    world.answers["lab-3"] = [HostFailure("lab-3", "Fail", "no", unreachable=True)]
    outcome = taken(world)
    assert world.happened == ["lock lab-1", "upgrade lab-3"]
    assert outcome.error is not None
    assert outcome.error.exit_code == ExitCode.UNREACHABLE
    assert "Not touched: lab-2, lab-1." in str(outcome.error.details)


def test_a_reboot_where_it_is_allowed(world: World) -> None:
    wants = said("lab-3", OLD, reboot=["the GPUs are in use by Xorg"])
    world.answers["lab-3"] = [wants, said("lab-3")]
    assert taken(world, reboots=("lab-3",)).states["lab-3"] == "upgraded"
    assert world.happened[:3] == ["lock lab-1", "upgrade lab-3", "reboot lab-3"]
    world.happened.clear()
    world.answers["lab-3"] = [wants]
    outcome = taken(world)
    assert world.happened == ["lock lab-1", "upgrade lab-3"]
    assert "wants a reboot that nobody allowed: the GPUs are in use by Xorg" in str(outcome.error)


def test_what_was_agreed_to_is_what_is_done(world: World) -> None:
    def gone() -> None:
        world.healthy("tiny-0", "unhealthy")

    world.looks = [lambda: None, gone]  # while lab-3 had its turn
    ready = prepared(world)
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    assert outcome.states == {"lab-3": "upgraded", "lab-2": "waiting"}
    assert "found no other replica in rotation of tiny, expected one, as planned" in str(outcome.error)
    assert "lab-2 was not touched. Not touched: lab-1." in str(outcome.error and outcome.error.details)
    assert outcome.drained == []


def test_replicas_are_waited_for_before_the_host_is_let_in(world: World) -> None:
    def loading() -> None:
        world.healthy("tiny-1", "starting")

    def loaded() -> None:
        world.healthy("tiny-1", "healthy")

    world.looks = [lambda: None, lambda: None, loading, lambda: None, loaded]
    assert taken(world).states["lab-2"] == "upgraded"
    assert not world.looks


def test_replicas_that_never_come_back_end_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 1000))
    monkeypatch.setattr(upgrading.time, "monotonic", lambda: next(clock))
    world.looks = [lambda: None, lambda: None, lambda: world.healthy("tiny-1", "unhealthy")]
    outcome = taken(world)
    assert outcome.states == {"lab-3": "upgraded", "lab-2": "failed"}
    assert "lab-2: found tiny-1 not healthy under the new driver, expected healthy" in str(outcome.error)
    assert outcome.drained == ["lab-2"]


def test_ctrl_c_says_what_is_drained_and_how_to_go_on(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.answers["lab-2"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        taken(world)
    text = capsys.readouterr().err
    assert "Stopped in the middle of lab-2. Upgraded: lab-3. lab-2 is drained, and gets no requests." in text
    assert "onprem-llm host undrain lab-2" in text


@pytest.mark.parametrize("plan", ["drain lab-2", "let in lab-2"])
def test_hosts_that_moved_between_two_looks_are_looked_at_again(world: World, plan: str) -> None:
    """A CDI specification that some host makes anew meanwhile is enough."""

    def moved() -> None:
        raise RefusedError("the hosts changed since this plan was made")

    world.rotations[plan] = [moved, moved, lambda: None]
    outcome = taken(world)
    assert set(outcome.states.values()) == {"upgraded"}
    assert world.happened.count(plan) == 3
    world.happened.clear()
    world.rotations[plan] = [moved] * 100
    outcome = taken(world)
    assert outcome.states["lab-2"] == ("waiting" if plan.startswith("drain") else "failed")
    assert world.happened.count(plan) == upgrading.TRIES
    assert "the hosts changed" in str(outcome.error)


CUT_OFF = [OnpremError("lab-2: the book could not be written"), KeyboardInterrupt()]


def half_drained(world: World, error: BaseException, *, book: bool, gateway: bool) -> None:
    def half() -> None:
        if book:
            world.drained("lab-2")
        if gateway:
            world.facts["lab-1"]["gateway"]["servers"]["tiny/tiny-1"]["admin"] = "drain"
        raise error

    world.rotations["drain lab-2"] = [half]


@pytest.mark.parametrize("error", CUT_OFF, ids=["error", "ctrl-c"])
@pytest.mark.parametrize(("book", "gateway"), [(True, True), (False, True), (True, False)])
def test_what_ends_in_the_middle_of_the_drain_says_that_the_host_is_drained(
    world: World, capsys: pytest.CaptureFixture[str], error: BaseException, book: bool, gateway: bool
) -> None:
    half_drained(world, error, book=book, gateway=gateway)
    state = "lab-2 is drained, and gets no requests. Its driver was not touched. Not touched: lab-1."
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            taken(world)
        text = capsys.readouterr().err
        assert state in text
        assert "onprem-llm host undrain lab-2" in text
        return
    outcome = taken(world)
    assert (outcome.states, outcome.drained) == ({"lab-3": "upgraded", "lab-2": "waiting"}, ["lab-2"])
    assert state in str(outcome.error and outcome.error.details)
    assert "onprem-llm host undrain lab-2" in str(outcome.error and outcome.error.hint)


def test_what_was_put_back_in_the_middle_of_the_drain_is_not_drained(world: World) -> None:
    half_drained(world, CUT_OFF[0], book=False, gateway=False)
    outcome = taken(world)
    assert outcome.drained == []
    assert "lab-2 was not touched. Not touched: lab-1." in str(outcome.error and outcome.error.details)
    assert "undrain" not in str(outcome.error and outcome.error.hint)


def test_a_drain_of_which_nobody_can_tell_how_far_it_came_counts(world: World) -> None:
    def gone() -> None:
        raise OnpremError("lab-1 does not answer")

    world.looks = [lambda: None, lambda: None, gone]
    half_drained(world, CUT_OFF[0], book=False, gateway=False)
    outcome = taken(world)
    assert outcome.drained == ["lab-2"]
    assert "the book could not be written" in str(outcome.error)


def test_what_ends_after_the_host_was_let_in_does_not_call_it_drained(world: World) -> None:
    def late() -> None:
        world.drained()
        raise OnpremError("lab-1 could not be reached")

    world.rotations = {"drain lab-2": [lambda: world.drained("lab-2")], "let in lab-2": [late]}
    outcome = taken(world)
    assert (outcome.states["lab-2"], outcome.drained) == ("failed", [])


def test_a_site_with_a_run_file_is_told(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    site = parse_site({"nvidia_driver": {"run_file": "/drivers/x.run"}}, "x")
    monkeypatch.setattr(upgrading, "load_site", lambda *_: site)
    with pytest.raises(InvalidError, match="run_file is set"):
        upgrading.prepare("580", CONNECTION, PlainProgress())


def test_an_order_has_what_the_role_asks_for() -> None:
    site = parse_site({"packages_dir": "p", "reboot": "auto", "nvidia_driver": {"kernel_modules": "open"}}, "x")
    order = upgrading.order_of(site, "580", "Debian GNU/Linux 13 (trixie)", downgrade=True)
    assert order["package_source"] == "/etc/apt/sources.list.d/onprem-llm-packages.sources"
    assert (order["version"], order["downgrade"], order["reboot"], order["proxy"]) == ("580", True, False, None)
    rocky = upgrading.order_of(site, "580", "Rocky Linux 9.6 (Blue Onyx)")
    assert rocky["package_source"] == "/etc/yum.repos.d/onprem-llm-packages.repo"
    nvidia: Any = order["nvidia_driver"]
    assert nvidia["kernel_modules"] == "open"


BEFORE = said("a", OLD)


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (said("a"), None),
        (said("a", OLD), f"found that driver {OLD} runs, expected {NEW}"),
        (said("a", driver_upgrade={"loaded": None}), f"found that no driver runs, expected {NEW}"),
        (
            said("a", gpu_check=gpus("a", 1)),
            "found half of the GPUs are missing: 1 of 2 GPUs; gone: H100 at 0000:0:00.0",
        ),
        (said("a", findings=[error_of("gpu_access")]), "found bad gpu_access, expected good. Mend it."),
        (said("a", findings=[{**error_of("gpu_access"), "level": "warning"}]), None),
    ],
)
def test_what_is_worse_than_before(after: dict[str, Any], text: str | None) -> None:
    found = trouble("a", NEW, BEFORE, after)
    assert found is None if text is None else str(found).startswith(text)


def test_what_was_bad_before_is_not_the_drivers_fault() -> None:
    bad = [error_of("ecc")]
    assert trouble("a", NEW, said("a", OLD, findings=bad), said("a", findings=bad)) is None


def of_card(number: int, expected: str = "none", count: int = 1) -> dict[str, str]:
    found = f"uncorrected memory errors: GPU {number} (0000:{number}:00.0): {count} since the driver was loaded"
    return {**error_of("gpu_memory"), "found": found, "expected": expected}


def xid(code: int) -> dict[str, str]:
    return {**error_of("xid"), "found": f"Xid {code} (it hangs) on GPU 0 (0000:0:00.0), once", "expected": "none"}


@pytest.mark.parametrize(
    ("before", "after", "bad"),
    [
        (of_card(0), of_card(0, count=3), False),
        (of_card(0), of_card(1), True),
        (of_card(0), of_card(0, "bad rows are replaced by spare ones"), True),
        ({**of_card(0), "found": "GPU 0, 1, 2: 1"}, of_card(1), False),
        ({**of_card(0), "found": "all 3 GPUs: 1"}, of_card(2), False),
        ({**of_card(0), "found": "GPU 0, 1: 1"}, of_card(2), True),
        (xid(62), xid(62), False),
        (xid(62), xid(79), True),
    ],
)
def test_an_error_is_known_where_its_cards_had_it_before(
    before: dict[str, str], after: dict[str, str], bad: bool
) -> None:
    cards = {"gpu_check": gpus("a", 0, 1, 2)}
    for card in cards["gpu_check"]["gpus"]:
        card["index"] = int(card["uuid"][-1])
    found = trouble("a", NEW, said("a", OLD, findings=[before], **cards), said("a", findings=[after], **cards))
    assert bool(found) is bad


def test_a_card_is_missed_where_the_driver_showed_none_before() -> None:
    """As an unfinished run leaves a host: nothing is loaded, so what must be there tells the PCI bus."""
    before = said("a", gpu_check={"gpus": []}, driver_upgrade={"loaded": None, "gpus": 2})
    driver = {"loaded": NEW, "gpus": 2}
    found = trouble("a", NEW, before, said("a", gpu_check=gpus("a", 1), driver_upgrade=driver))
    assert str(found).startswith("found 1 of 2 GPUs, expected every NVIDIA GPU of the PCI bus")
    assert trouble("a", NEW, before, said("a", driver_upgrade=driver)) is None
    # One that was away before is not the driver's fault.
    less = said("a", OLD, gpu_check=gpus("a", 1))
    assert trouble("a", NEW, less, said("a", gpu_check=gpus("a", 1), driver_upgrade=driver)) is None


class Asked:
    """The command on a world: its plan, what was asked, what was carried out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ready: Prepared, outcome: Outcome, *, terminal: bool) -> None:
        self.questions: list[str] = []
        self.reboots: list[str] | None = None

        def carried(*_: Any, reboots: list[str]) -> Outcome:
            self.reboots = list(reboots)
            return outcome

        def agree(question: str, *, yes: bool) -> None:
            self.questions.append(f"{question.strip()} {yes}")

        monkeypatch.setattr(command, "prepare", lambda *_: ready)
        monkeypatch.setattr(command, "carry_out", carried)
        monkeypatch.setattr(command.output, "agree", agree)
        monkeypatch.setattr(command.sys.stdin, "isatty", lambda: terminal, raising=False)


def with_policy(ready: Prepared, policy: str) -> Prepared:
    return Prepared(ready.plan, parse_site({"reboot": policy}, "x"), ready.before)


USED = {"reboot": ("the GPUs are in use by python3",)}


@pytest.mark.parametrize(
    ("policy", "yes", "terminal", "allowed"),
    [("auto", True, False, True), ("ask", False, True, True), ("ask", True, True, False), ("ask", True, False, False),
     ("never", False, True, False)],
)  # fmt: skip
def test_yes_agrees_to_all_but_a_reboot(
    monkeypatch: pytest.MonkeyPatch, world: World, policy: str, yes: bool, terminal: bool, allowed: bool
) -> None:
    ready = with_policy(prepared(world, **USED), policy)
    asked = Asked(monkeypatch, ready, Outcome({"lab-3": "upgraded"}), terminal=terminal)
    if not allowed:
        with pytest.raises(InvalidError, match="none is allowed; nothing was changed"):
            command.upgrade_driver("580", CONNECTION, check=False, yes=yes, as_json=False)
        assert (asked.questions, asked.reboots) == ([], None)
        return
    command.upgrade_driver("580", CONNECTION, check=False, yes=yes, as_json=False)
    assert asked.reboots == ["lab-3", "lab-2", "lab-1"]
    assert asked.questions[0] == f"Upgrade the driver of lab-3, lab-2, lab-1, one after the other? {yes}"
    assert asked.questions[1:] == (
        [] if policy == "auto" else ["Reboot lab-3, lab-2, lab-1, each drained first? False"]
    )


def test_an_older_driver_is_asked_for_on_its_own(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    ready = prepared(world, loaded="590.44.01", installed="590.44.01")
    asked = Asked(monkeypatch, ready, Outcome(), terminal=True)
    command.upgrade_driver("580", CONNECTION, check=False, yes=False, as_json=False)
    assert asked.questions[1] == "Go back to an older driver on lab-3, lab-2, lab-1? False"
    assert asked.reboots == []


def test_a_check_shows_and_asks_nothing(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch, prepared(world, **USED), Outcome(), terminal=False)
    command.upgrade_driver("580", CONNECTION, check=True, yes=False, as_json=False)
    assert (asked.questions, asked.reboots) == ([], None)
    assert "lab-3 is the canary: nothing serves there" in capsys.readouterr().out


def test_json_has_the_states_and_the_error_follows(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome({"lab-3": "failed"}, ["lab-3"], OnpremError("lab-3: no"))
    Asked(monkeypatch, prepared(world), outcome, terminal=False)
    with pytest.raises(OnpremError, match="lab-3: no"):
        command.upgrade_driver("580", CONNECTION, check=False, yes=True, as_json=True)
    text = capsys.readouterr().out
    assert '"state": "failed"' in text
    assert text.count('"state": "waiting"') == 2


def test_a_second_run_over_hosts_that_have_it_does_nothing(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(monkeypatch, prepared(world, loaded=NEW, installed=NEW, done=True), Outcome(), terminal=False)
    command.upgrade_driver("580", CONNECTION, check=False, yes=False, as_json=False)
    assert (asked.questions, asked.reboots) == ([], None)
    assert "Nothing to do: driver 580 runs wherever it could." in capsys.readouterr().out


@pytest.mark.parametrize("version", ["latest", "58", "580-open", "580.95.05;id"])
def test_what_is_no_version_is_told_before_any_host_is_asked(version: str, tmp_path: Path) -> None:
    (tmp_path / "i").write_text("a\n")
    with pytest.raises(UsageError, match="expected a branch or a version"):
        command.upgrade_driver(version, CONNECTION, check=False, yes=True, as_json=False)
    done = CliRunner().invoke(bootstrap_command.command, [str(tmp_path / "i"), "--upgrade-driver", version])
    assert isinstance(done.exception, UsageError | click.UsageError)
