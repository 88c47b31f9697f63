"""What an upgrade of drivers leaves where it came to no end, what is said of it, and how the next run takes that up."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from upgraded_world import (
    CONNECTION,
    CUT_OFF,
    NEW,
    OLD,
    WHO,
    Asked,
    Looks,
    World,
    error_of,
    half_drained,
    prepared,
    said,
    taken,
)

from onprem_llm import upgrade_look, upgrading
from onprem_llm.commands import bootstrap as bootstrap_command
from onprem_llm.commands import upgrade_driver as command
from onprem_llm.errors import RefusedError
from onprem_llm.output import PlainProgress
from onprem_llm.planning.driver_serving import PURPOSE
from onprem_llm.run_events import HostFailure
from onprem_llm.upgrade_view import upgrade_text
from onprem_llm.upgrading import Prepared, carry_out


def test_what_an_earlier_upgrade_drained_is_let_in_and_nothing_that_a_person_drained(world: World) -> None:
    world.drained("lab-2", purpose=PURPOSE)
    ready = prepared(world)
    assert ready.plan.hosts[0].host == "lab-2"
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    first = "lock lab-1|upgrade lab-2|unlock|let in lab-2|lab-2: 550.163.01 -> 580.95.05"
    assert "|".join(world.happened).startswith(first)
    assert (outcome.states["lab-2"], outcome.drained) == ("upgraded", [])
    assert "Let in again: lab-2." in command.ending(ready.plan, outcome)
    assert "Still drained" not in command.ending(ready.plan, outcome)


def test_what_a_person_takes_over_in_the_middle_stays_drained(world: World) -> None:
    world.drained("lab-2", purpose=PURPOSE)
    ready = prepared(world)
    world.looks = [lambda: None] * 3 + [lambda: world.drained("lab-2")]
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    assert "let in lab-2" not in world.happened
    assert outcome.drained == ["lab-2"]
    world.happened.clear()
    # Before its turn began, too.
    world.drained("lab-2", purpose=PURPOSE)
    ready = prepared(world)
    world.looks = [lambda: world.drained("lab-2")]
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    assert "let in lab-2" not in world.happened
    assert outcome.drained == ["lab-2"]


def test_a_host_that_only_has_to_be_let_in_is_looked_at_with_no_excuse(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """Its first turn ended at a finding; that the look before this turn has it too makes it no better."""
    world.drained("lab-2", purpose=PURPOSE)
    ready = prepared(world, loaded=NEW, installed=NEW, done=True)
    assert [turn.host for turn in ready.plan.hosts] == ["lab-2"]
    bad = said("lab-2", findings=[error_of("gpu_memory")])
    world.answers["lab-2"] = [bad]
    ready = Prepared(ready.plan, ready.site, {"lab-2": bad})
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    assert "lab-2: found bad gpu_memory" in str(outcome.error)
    assert (outcome.states, outcome.drained) == ({"lab-2": "failed"}, ["lab-2"])
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    assert (outcome.states, outcome.drained, outcome.error) == ({"lab-2": "let in"}, [], None)
    asked = Asked(monkeypatch, ready, outcome, terminal=True)
    command.upgrade_driver("580", CONNECTION, check=False, yes=False, as_json=False)
    assert asked.questions == ["Let lab-2 in again, if all is well there? False"]


def test_replicas_on_their_way_are_waited_for_where_an_earlier_run_came_to_no_end(world: World) -> None:
    world.drained("lab-2", purpose=PURPOSE)
    world.healthy("tiny-1", "starting")
    ready = prepared(world)
    world.looks = [lambda: None] * 3 + [lambda: world.healthy("tiny-1", "healthy")]
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    assert outcome.states["lab-2"] == "upgraded"
    assert not world.looks


def test_a_drain_that_was_cut_off_is_done_again_so_that_the_host_is_let_in(world: World) -> None:
    world.facts["lab-1"]["gateway"]["servers"]["tiny/tiny-1"]["admin"] = "drain"
    world.healthy("tiny-1", "unhealthy")  # one that serves is drained anyway
    taken(world)
    assert "let in lab-2" in world.happened[world.happened.index("drain lab-2") :]


def test_what_goes_on_on_a_host_is_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.answers["lab-2"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        taken(world)
    text = capsys.readouterr().err
    assert "What was begun on lab-2 may go on there to its end" in text
    assert "`onprem-llm bootstrap --upgrade-driver 580 --check` says so for as long as it does" in text
    # As where the connection is lost in the middle.
    world.answers["lab-2"] = [HostFailure("lab-2", "Upgrade", "timed out", unreachable=True)]
    outcome = taken(world)
    assert "What was begun on lab-2 may go on there" in str(outcome.error and outcome.error.details)
    # What the host itself says has come to its end.
    world.answers["lab-2"] = [HostFailure("lab-2", "Upgrade", "no room", unreachable=False)]
    outcome = taken(world)
    assert "may go on there" not in str(outcome.error and outcome.error.details)


def test_ctrl_c_in_the_middle_of_a_reboot_says_that_it_goes_on(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.answers["lab-3"] = [said("lab-3", OLD, reboot=["in use"]), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        taken(world, reboots=("lab-3",))
    assert "lab-3 may be on its way down for its reboot" in capsys.readouterr().err


def test_events_say_in_words_what_came_of_a_turn(world: World) -> None:
    world.answers["lab-2"] = [
        HostFailure("lab-2", "Upgrade", "driver 580 does not load: no key.\nmore", unreachable=False)
    ]
    taken(world)
    assert world.happened[-1] == (
        "lab-2: 550.163.01 -> 580.95.05 did not come to its end: driver 580 does not load: no key; it is drained"
    )
    world.answers["lab-2"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        taken(world)
    assert world.happened[-1] == (
        "lab-2: 550.163.01 -> 580.95.05 did not come to its end: stopped by Ctrl-C; it is drained, and what was begun "
        "there may go on"
    )
    world.happened.clear()
    taken(world, loaded=None, installed=NEW)
    assert "lab-3: 580.95.05 was installed by an earlier run and did not run; it runs now" in world.happened


def test_a_turn_that_had_not_begun_leaves_no_event(world: World) -> None:
    half_drained(world, CUT_OFF[0], book=False, gateway=False)
    taken(world)
    assert world.happened[-1] == "drain lab-2"


def test_what_an_earlier_run_began_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = Looks(monkeypatch, world, WHO, WHO)
    ready = upgrade_look.prepare("580", CONNECTION, PlainProgress())
    assert looks.asked == ["lab-1,lab-2,lab-3", "lab-2", "lab-2", "lab-1,lab-2,lab-3"]
    assert len(ready.plan.hosts) == 3
    text = f"lab-2: what an earlier run began there goes on, and is waited for: {WHO}"
    assert capsys.readouterr().err.count(text) == 1


def test_what_takes_too_long_or_belongs_to_a_run_that_goes_on_is_refused(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    Looks(monkeypatch, world, WHO)
    with pytest.raises(RefusedError, match="at work on the driver of lab-2; nothing was changed") as refused:
        upgrade_look.prepare("580", CONNECTION, PlainProgress(), wait=0)
    assert refused.value.details == f"lab-2: {WHO}"
    assert "the same command with --check" in str(refused.value.hint)
    world.facts["lab-1"]["lock"] = {"owner": "ann@a pid 9 (driver of lab-2)", "age": 5, "unit": "u"}
    looks = Looks(monkeypatch, world, WHO)
    with pytest.raises(RefusedError) as refused:
        upgrade_look.prepare("580", CONNECTION, PlainProgress())
    held = "wait for the run that holds the lock: ann@a pid 9 (driver of lab-2); if it is dead, add --break-lock"
    assert (refused.value.hint, len(looks.asked)) == (held, 1)
    looks = Looks(monkeypatch, world, WHO)
    upgrade_look.prepare("580", CONNECTION, PlainProgress(), break_lock=True)
    assert len(looks.asked) == 3


def test_the_lock_of_a_dead_run_is_broken_once(world: World) -> None:
    carry_out(prepared(world), CONNECTION, PlainProgress(), reboots=(), break_lock=True)
    locks = [one for one in world.happened if one.endswith("lock lab-1")]
    assert locks == ["break lock lab-1", "lock lab-1", "lock lab-1"]


def test_only_upgrades_have_a_lock_to_break(tmp_path: Path) -> None:
    (tmp_path / "i").write_text("a\n")
    done = CliRunner().invoke(bootstrap_command.command, [str(tmp_path / "i"), "--break-lock"])
    assert "--break-lock: found no --upgrade-driver" in str(done.exception)


def test_a_check_waits_for_nobody(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    Looks(monkeypatch, world, WHO)
    with pytest.raises(RefusedError):
        command.upgrade_driver("580", CONNECTION, check=True, yes=False, as_json=False)


def test_nothing_to_do_names_who_stands_drained_all_the_same(
    monkeypatch: pytest.MonkeyPatch, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.drained("lab-2")
    ready = prepared(world, loaded=NEW, installed=NEW, done=True)
    monkeypatch.setattr(command, "prepare", lambda *_, **__: ready)
    command.upgrade_driver("580", CONNECTION, check=False, yes=False, as_json=False)
    end = capsys.readouterr().out.splitlines()[-2:]
    assert end == [
        "Nothing to do: driver 580 runs wherever it could.",
        "Still drained, as before: lab-2 (onprem-llm host undrain HOST).",
    ]


def test_a_replica_that_its_schedule_switches_off_meanwhile_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """A reboot takes long enough for an entry to come into force."""
    decided = {"replicas": 1, "slots": 2, "off": ["tiny-1"], "since": "2026-11-20T19:00", "next": None}
    monkeypatch.setattr(upgrading.time, "monotonic", iter(range(0, 10**6, 1000)).__next__)

    def struck() -> None:
        world.healthy("tiny-1", "unhealthy")
        order = ["tiny-0", "tiny-1"]
        world.facts["lab-2"]["schedules"] = {"tiny": {"files": {}, "armed": True, "order": order, "decided": decided}}

    ready = prepared(world)
    run = world.run
    monkeypatch.setattr(upgrading, "_run", lambda *said: (struck() if "lab-2" in said[2] else None, run(*said))[1])
    outcome = carry_out(ready, CONNECTION, PlainProgress(), reboots=())
    assert (outcome.states["lab-2"], outcome.drained) == ("upgraded", [])


def test_a_host_whose_replica_the_clock_may_start_is_drained_for_its_turn(world: World) -> None:
    """Nothing serves there now: a timer would start it in the middle of the upgrade."""
    world.healthy("tiny-1", "unhealthy")
    taken(world)
    assert "drain lab-2" not in world.happened
    world.happened.clear()
    decided = {"replicas": 1, "slots": 2, "off": ["tiny-1"], "since": "2026-11-20T19:00", "next": None}
    schedule = {"files": {}, "armed": True, "order": ["tiny-0", "tiny-1"], "decided": decided}
    world.facts["lab-2"]["schedules"] = {"tiny": schedule}
    shown = next(line for line in upgrade_text(prepared(world).plan).splitlines() if line.startswith("lab-2 "))
    assert "drained meanwhile" in shown
    assert "tiny/tiny-1" not in shown
    taken(world)
    turn = world.happened[world.happened.index("drain lab-2") :]
    assert turn.index("upgrade lab-2") < turn.index("let in lab-2")
