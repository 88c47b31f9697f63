"""Replicas by the clock: all are placed and proven, the clock's choice is no drift, and changes leave it as it is."""

import json
from dataclasses import replace

import gang_lab
import pytest
import recorded_facts as made
from planning_lab import Hosts, changed, deploy, fewest, lab, model, there

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.scheduled import kept_order
from onprem_llm.planning.types import Plan
from onprem_llm.scheduling import schedule_lines
from onprem_llm.spec.site import Site

BY_CLOCK = """\
schedule:
- {at: "0 7 * * mon-fri", replicas: 3}
- {at: "0 19 * * mon-fri", replicas: 1}
timezone: Europe/Berlin
"""
TEXT = model(BY_CLOCK)
HOLD, WRITE = "Hold the schedule of tiny", "Write the schedule of tiny"


def titles(done: Plan) -> list[str]:
    return [step.title for step in done.steps]


def state(facts: Hosts, project: str) -> str:
    host = there(facts)[project]
    found: str = facts[host]["projects"][project]["containers"][0]["state"]
    return found


def table(done: Plan, host: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(done.files[host]["schedule.tiny"]["table.json"])
    return found


def test_all_are_placed_and_proven_before_the_clock_has_its_say() -> None:
    facts = lab(1, 1, 1)
    done = made.planned(facts, made.deployment(TEXT))
    assert titles(done).index(WRITE) == titles(done).index("Write the book") + 1
    assert HOLD not in titles(done)
    start = next(step for step in done.steps if step.title == "Start tiny")
    ready = [one["readiness"] for order in start.orders.values() for one in order["projects"]]  # type: ignore[attr-defined]
    assert len(ready) == 3
    assert all(ready)
    assert table(done, "lab-1")["order"] == ["tiny-0", "tiny-1", "tiny-2"]
    assert table(done, "lab-1")["gateway"] == "/srv/onprem-llm/gateway"
    assert table(done, "lab-2")["gateway"] is None
    own = {host: list(table(done, host)["slots"]) for host in facts}  # type: ignore[call-overload]
    assert own == {host: [project] for project, host in there(made.applied(done, facts)).items()}
    timer = done.files["lab-2"]["schedule.tiny"]["timer"]
    assert "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 07:00:00 Europe/Berlin\n" in timer


def test_nothing_is_placed_that_does_not_fit_at_its_largest() -> None:
    with pytest.raises(InvalidError):
        made.planned(lab(1, 1), made.deployment(TEXT))


@pytest.mark.parametrize("replicas", [0, 1, 2, 3])
def test_deploying_again_changes_nothing_at_any_time_of_day(replicas: int) -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", replicas)
    done = made.planned(facts, made.deployment(TEXT))
    assert done.is_noop, titles(done)
    assert not done.warnings


def test_one_that_the_clock_has_drained_is_let_in_by_the_clock() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 2)
    servers = facts["lab-1"]["gateway"]["servers"]
    servers["tiny/tiny-2"]["admin"] = "drain"
    assert made.planned(facts, made.deployment(TEXT)).is_noop
    servers["tiny/tiny-1"]["admin"] = "drain"
    done = made.planned(facts, made.deployment(TEXT))
    (change,) = [change for change in done.changes if change.subject == "gateway"]
    assert change.reasons == ("out of rotation: tiny/tiny-1",)


def test_one_that_is_to_run_and_does_not_is_drift() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 2)
    facts[there(facts)["tiny-1"]]["projects"]["tiny-1"]["containers"][0].update(state="exited", health=None)
    done = made.planned(facts, made.deployment(TEXT))
    assert titles(done)[0] == HOLD
    after = made.applied(done, facts)
    assert state(after, "tiny-1") == "running"
    assert state(after, "tiny-2") == "exited"
    assert not any(schedule["held"] for host in after.values() for schedule in host["schedules"].values())


def test_an_update_renders_those_that_are_off_and_leaves_them_stopped() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 2)
    done = made.planned(facts, made.deployment(changed(TEXT)))
    assert titles(done)[0] == HOLD
    assert fewest(done, facts) == 1
    after = made.applied(done, facts)
    assert {project: state(after, project) for project in there(after)} == {
        "tiny-0": "running",
        "tiny-1": "running",
        "tiny-2": "created",
    }
    assert "1024" in done.files[there(after)["tiny-2"]]["tiny-2"]["compose.yaml"]
    assert made.planned(after, made.deployment(changed(TEXT))).is_noop
    morning = made.clocked(after, "tiny", 3)
    assert made.planned(morning, made.deployment(changed(TEXT))).is_noop
    assert made.in_rotation(morning, "tiny") == {"tiny-0", "tiny-1", "tiny-2"}


def test_a_failed_update_puts_those_back_that_are_off_too() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 1)
    done = made.planned(facts, made.deployment(changed(TEXT)))
    failing = next(title for title in titles(done) if title.startswith("Replace"))
    after = made.failed_at(done, facts, failing)
    assert made.planned(after, made.deployment(TEXT)).is_noop
    assert state(after, "tiny-2") == "exited"
    assert not any(schedule["held"] for host in after.values() for schedule in host["schedules"].values())


def test_a_spare_goes_on_running_where_the_one_that_it_replaced_did() -> None:
    """With room for a spare the one that runs at night gets another number: those that are off must stay behind it."""
    facts = made.clocked(deploy(lab(2, 2, 2), TEXT), "tiny", 1)
    done = made.planned(facts, made.deployment(changed(TEXT)))
    assert fewest(done, facts) == 1
    after = made.applied(done, facts)
    order = after["lab-1"]["schedules"]["tiny"]["order"]
    assert state(after, order[0]) == "running"
    assert [state(after, project) for project in order[1:]] == ["created", "created"]
    assert sorted(order) == list(there(after))
    for replicas in (1, 3, 1):
        after = made.clocked(after, "tiny", replicas)
        assert made.planned(after, made.deployment(changed(TEXT))).is_noop


def test_another_time_is_a_new_revision_and_restarts_nobody() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 1)
    done = made.planned(facts, made.deployment(TEXT.replace("0 7", "30 6")))
    assert titles(done) == [HOLD, "Write the book", WRITE]
    assert done.revision == 2
    after = made.applied(done, facts)
    assert made.planned(after, made.deployment(TEXT.replace("0 7", "30 6"))).is_noop


def test_without_a_schedule_all_that_are_wanted_run_again_and_no_timer_is_left() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 1)
    plain = made.deployment(model("replicas: 2\n"))
    done = made.planned(facts, plain)
    after = made.applied(done, facts)
    assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1"}
    assert set(there(after)) == {"tiny-0", "tiny-1"}
    assert not any(host["schedules"] for host in after.values())
    assert made.planned(after, plain).is_noop


def test_a_timer_that_was_stopped_or_edited_is_put_right() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 3)
    facts["lab-2"]["schedules"]["tiny"]["armed"] = False
    facts["lab-3"]["schedules"]["tiny"]["files"]["timer"] = "edited"
    done = made.planned(facts, made.deployment(TEXT))
    assert titles(done) == [WRITE]
    assert done.steps[0].hosts == ("lab-2", "lab-3")
    assert [(c.host, c.action) for c in done.changes if c.subject == "schedule"] == [
        ("lab-2", "update"),
        ("lab-3", "update"),
    ]


def test_a_gang_is_refused_its_hosts_have_a_clock_each() -> None:
    by_clock = '{at: "0 7 * * *", replicas: 2}, {at: "0 19 * * *", replicas: 1}'
    with pytest.raises(InvalidError, match="wide-0 is a gang over lab-1, lab-2"):
        made.planned(gang_lab.hosts(4), made.deployment(gang_lab.gang(f"schedule: [{by_clock}]\n", nodes="auto")))


def test_down_takes_the_timers_away_before_anything_else() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 2)
    current = made.current(facts)
    done = plan(Site(), made.without(facts, "tiny"), current)
    assert titles(done)[0] == "Take the schedule of tiny away"
    after = made.applied(done, facts)
    assert not there(after)
    assert not any(host["schedules"] for host in after.values())


def test_a_drained_host_runs_last_so_that_others_make_up_for_it() -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 1)
    first = there(facts)["tiny-0"]
    facts["lab-1"]["book"]["hosts"] = {first: {"state": "drained", "by": "me@here", "at": "2026-11-21T00:00:00Z"}}
    done = made.planned(facts, made.deployment(TEXT))
    host = there(facts)["tiny-1"]
    assert table(done, host)["order"] == ["tiny-1", "tiny-2", "tiny-0"]


@pytest.mark.parametrize("until", [HOLD, "Write the book"])
def test_what_a_change_that_was_cut_off_holds_is_let_go_by_the_next_deploy(until: str) -> None:
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 1)
    text = changed(TEXT)
    after = made.cut_off(made.planned(facts, made.deployment(text)), facts, until)
    done = made.planned(after, made.deployment(TEXT if until == HOLD else text))
    assert titles(done) == [WRITE]
    assert {one.host for one in done.changes if "held" in " ".join(one.reasons)} == set(facts)
    freed = made.applied(done, after)
    assert not any(schedule["held"] for host in freed.values() for schedule in host["schedules"].values())
    assert made.planned(freed, made.deployment(TEXT if until == HOLD else text)).is_noop


def test_hosts_with_different_tables_are_named() -> None:
    """Each follows its own: by night nobody may run at all."""
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 1)
    assert len(schedule_lines(made.current(facts))) == 1
    facts["lab-2"]["schedules"]["tiny"]["order"] = ["tiny-1", "tiny-2", "tiny-0"]
    assert "different tables" in schedule_lines(made.current(facts))[-1]
    facts["lab-2"]["schedules"]["tiny"]["order"] = ["tiny-0", "tiny-1", "tiny-2"]
    facts["lab-2"]["schedules"]["tiny"]["held"] = True
    assert schedule_lines(made.current(facts))[-1].startswith("lab-2: the schedule of tiny is held there")


def test_hosts_that_a_limit_leaves_out_stay_at_one_with_the_others() -> None:
    """They follow the table that they have: by another order nobody at all might run."""
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 1)
    first, second = there(facts)["tiny-0"], there(facts)["tiny-1"]
    facts["lab-1"]["book"]["hosts"] = {first: {"state": "drained", "by": "me@here", "at": "2026-11-21T00:00:00Z"}}
    done = made.planned(facts, made.deployment(TEXT), left_out=(second,))
    after = made.clocked({**made.applied(done, facts), second: facts[second]}, "tiny", 1)
    assert [state(after, project) for project in there(after)].count("running") == 1
    assert kept_order(["tiny-1", "tiny-2", "tiny-3"], ("tiny-0", "tiny-1", "tiny-2")) == ["tiny-3", "tiny-1", "tiny-2"]
    assert kept_order(["tiny-0", "tiny-1", "tiny-2"], ("tiny-1",)) == ["tiny-1", "tiny-0", "tiny-2"]
    assert kept_order(["tiny-2"], ("tiny-1", "tiny-2")) == ["tiny-2"]


def test_the_clock_goes_on_while_bytes_are_brought_and_is_held_before_anything_changes() -> None:
    """They may take days; what the clock has decided by then is checked against what was planned on."""
    facts = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 2)
    image = made.archive("vllm/vllm-openai:v0.12.0")
    text = TEXT.replace("v0.11.0", "v0.12.0")
    done = made.planned(facts, made.deployment(text, image=image))
    kinds = [step.kind for step in done.steps]
    assert kinds[: kinds.index("schedule")] == ["stage"]
    assert kinds[kinds.index("schedule") + 1] == "pending"
    held = done.steps[kinds.index("schedule")]
    assert {host: order["planned"] for host, order in held.orders.items()} == {
        host: {"off": ["tiny-2"]} for host in facts
    }
    assert all(order["state"] == "held" for order in held.orders.values())


@pytest.mark.parametrize(("start", "least"), [(60, 4 * 3600), (7200, 2 * 3 * 7200)])
def test_a_hold_counts_as_long_as_the_change_may_take(start: int, least: int) -> None:
    text = TEXT + f"timeouts: {{start: {start}}}\n"
    facts = made.clocked(deploy(lab(1, 1, 1), text), "tiny", 3)
    done = made.planned(facts, made.deployment(changed(text)))
    held = next(step for step in done.steps if step.title == HOLD)
    (seconds,) = {order["seconds"] for order in held.orders.values()}
    assert isinstance(seconds, int)
    assert least <= seconds <= 72 * 3600


def test_a_host_that_was_silent_when_all_was_taken_down_is_told_of_and_freed_once_it_is_back() -> None:
    before = made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 2)
    seen = {name: state for name, state in before.items() if name != "lab-3"}
    done = plan(Site(), made.without(seen, "tiny"), replace(made.current(seen), unreachable=("lab-3",)))
    assert any("lab-3" in warning for warning in done.warnings)
    after = {**made.applied(done, seen), "lab-3": before["lab-3"]}
    (line,) = schedule_lines(made.current(after))
    assert line.startswith("lab-3: the schedule of tiny goes on there")
    for projects in (after["lab-3"]["projects"], {}):  # it may have nothing but its timer
        left = {**after, "lab-3": {**after["lab-3"], "projects": projects}}
        again = plan(Site(), made.without(left, "tiny"), made.current(left))
        assert ("lab-3", "schedule") in {(change.host, change.subject) for change in again.changes}
        free = made.applied(again, left)
        assert not any(host["schedules"] for host in free.values())
        assert not there(free)
