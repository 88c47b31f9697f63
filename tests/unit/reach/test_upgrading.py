"""Hosts' turns on the way to another driver: what is around each, what ends them, and how the fleet is left then."""

import pytest
import recorded_facts as made
from upgraded_world import CONNECTION, CUT_OFF, NEW, OLD, Asked, World, half_drained, prepared, said, taken

from onprem_llm import upgrading
from onprem_llm.commands import upgrade_driver as command
from onprem_llm.errors import ExitCode, InvalidError, OnpremError, RefusedError
from onprem_llm.output import PlainProgress
from onprem_llm.planning.driver_serving import PURPOSE
from onprem_llm.planning.driver_upgrade import Seen, plan_upgrade
from onprem_llm.run_events import HostFailure
from onprem_llm.spec.site import parse_site
from onprem_llm.upgrading import Outcome, Prepared, carry_out


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
    assert world.happened[:2] == ["lock lab-1", "upgrade lab-3"]
    assert not [one for one in world.happened if "lab-2" in one]
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
    assert world.happened[:-1] == ["lock lab-1", "upgrade lab-3"]
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

    world.rotations = {"drain lab-2": [lambda: world.drained("lab-2", purpose=PURPOSE)], "let in lab-2": [late]}
    outcome = taken(world)
    assert (outcome.states["lab-2"], outcome.drained) == ("failed", [])
