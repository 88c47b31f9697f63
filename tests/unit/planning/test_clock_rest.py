"""The clock of a drained host: it rests from before the drain to after the undrain, whatever is cut off meanwhile."""

import pytest
import recorded_facts as made
from planning_lab import Hosts, changed, deploy, lab, model, there
from test_hosts_change import rotation

from onprem_llm.planning.clock_rest import follows_clock
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan
from onprem_llm.scheduling import schedule_lines
from onprem_llm.spec.site import Site

TEXT = model('schedule:\n- {at: "0 7 * * *", replicas: 3}\n- {at: "0 19 * * *", replicas: 1}\n')
REST, GO_ON = "Have the schedules of lab-2 rest", "Have the schedules of lab-2 go on"
UNTIL_UNDRAINED = "Have the schedules of lab-2 rest until it is undrained"


@pytest.fixture
def three() -> Hosts:
    """Three replicas, of which one runs by now: lab-2's is off."""
    return made.clocked(deploy(lab(1, 1, 1), TEXT), "tiny", 1)


def titles(done: Plan) -> list[str]:
    return [step.title for step in done.steps]


def resting(facts: Hosts) -> dict[str, str | None]:
    return {name: host["schedules"]["tiny"].get("resting") for name, host in facts.items()}


def lines(facts: Hosts) -> str:
    return "\n".join(schedule_lines(made.current(facts))[1:])


def test_it_rests_before_the_host_is_touched_and_for_good_once_the_book_says_so(three: Hosts) -> None:
    done = rotation(three, "lab-2")
    assert (titles(done)[0], titles(done)[-2:]) == (REST, ["Write the book", UNTIL_UNDRAINED])
    assert done.steps[0].orders == {"lab-2": {"rest": "briefly", "seconds": 14400}}
    after = made.applied(done, three)
    assert resting(after) == {"lab-1": None, "lab-2": "drained", "lab-3": None}
    assert lines(after) == "lab-2: no replica there is started or stopped by the clock while it is drained"
    assert rotation(after, "lab-2").is_noop


def test_a_drained_host_rests_over_deployments_and_goes_on_when_it_is_let_in(three: Hosts) -> None:
    after = made.applied(rotation(three, "lab-2"), three)
    after = made.applied(made.planned(after, made.deployment(TEXT)), after)  # its replica comes last from now on
    assert made.planned(after, made.deployment(TEXT)).is_noop
    updated = made.applied(made.planned(after, made.deployment(changed(TEXT))), after)
    assert resting(updated)["lab-2"] == "drained"
    back = rotation(updated, "lab-2", back=True)
    assert titles(back).index(GO_ON) < titles(back).index("Write the book")
    free = made.applied(back, updated)
    assert set(resting(free).values()) == {None}
    assert not lines(free)
    assert made.planned(free, made.deployment(changed(TEXT))).is_noop


def test_a_person_is_told_of_a_replica_that_runs_before_others_and_gets_no_requests(three: Hosts) -> None:
    """Until the next deploy: by night none of those that do would run."""
    first = there(three)["tiny-0"]
    warned = rotation(three, first).warnings
    assert any("deploy tiny again once lab-1 is drained" in warning for warning in warned)
    after = made.applied(rotation(three, first), three)
    after = made.applied(made.planned(after, made.deployment(TEXT)), after)
    assert after["lab-2"]["schedules"]["tiny"]["order"][-1] == "tiny-0"
    again = rotation(made.applied(rotation(after, first, back=True), after), first)
    assert not any("schedule" in warning for warning in again.warnings)


def test_a_drain_that_fails_lets_the_clock_go_on(three: Hosts) -> None:
    done = rotation(three, "lab-2")
    for title in titles(done)[:-1]:
        assert resting(made.failed_at(done, three, title))["lab-2"] is None, title


def test_a_drain_that_is_cut_off_never_rests_for_good_unless_the_book_says_why(three: Hosts) -> None:
    done = rotation(three, "lab-2")
    for title in titles(done)[:-2]:
        after = made.cut_off(done, three, title)
        assert resting(after)["lab-2"] == "briefly", title
        assert "onprem-llm host undrain lab-2" in lines(after)
        assert set(resting(made.applied(rotation(after, "lab-2", back=True), after)).values()) == {None}
        assert resting(made.applied(rotation(after, "lab-2"), after))["lab-2"] == "drained"
        deployed = made.planned(after, made.deployment(TEXT))
        assert set(resting(made.applied(deployed, after)).values()) == {None}
    after = made.cut_off(done, three, "Write the book")
    assert "lab-2 is drained, and its schedules go on: onprem-llm host drain lab-2" in lines(after)
    again = rotation(after, "lab-2")
    assert titles(again) == [UNTIL_UNDRAINED]
    assert resting(made.applied(again, after))["lab-2"] == "drained"


def test_an_undrain_that_is_cut_off_lets_go_before_the_book_does(three: Hosts) -> None:
    after = made.applied(rotation(three, "lab-2"), three)
    back = rotation(after, "lab-2", back=True)
    for title in titles(back):
        left = made.cut_off(back, after, title)
        assert resting(left)["lab-2"] is None or "lab-2" in made.current(left).marks, title
        assert set(resting(made.applied(rotation(left, "lab-2", back=True), left)).values()) == {None}


def test_a_schedule_that_comes_to_a_drained_host_rests_there_at_once() -> None:
    facts = deploy(lab(1, 1, 1), model("replicas: 3\n"))
    drained = made.applied(rotation(facts, "lab-2"), facts)
    done = made.planned(drained, made.deployment(TEXT))
    steps = titles(done)
    assert steps.index("Have schedules rest on drained hosts alone") < steps.index("Write the schedule of tiny")
    after = made.applied(done, drained)
    assert resting(after) == {"lab-1": None, "lab-2": "drained", "lab-3": None}
    assert made.planned(after, made.deployment(TEXT)).is_noop


def test_what_rested_with_a_schedule_that_is_gone_does_not_rest_with_the_next(three: Hosts) -> None:
    after = made.applied(rotation(three, "lab-2"), three)
    after = made.applied(plan(Site(), made.without(after, "tiny"), made.current(after)), after)
    after = made.applied(rotation(after, "lab-2", back=True), after)
    again = made.applied(made.planned(after, made.deployment(TEXT)), after)
    assert resting(again) == {"lab-1": None, "lab-2": None, "lab-3": None}


def test_a_host_without_schedules_is_drained_as_before() -> None:
    facts = deploy(lab(1, 1, 1), model("replicas: 3\n"))
    for back in (False, True):
        done = rotation(facts, "lab-2", back=back)
        assert not {"schedule", "schedule_rest"} & {step.kind for step in done.steps}
        facts = made.applied(done, facts)
    assert not follows_clock(made.current(facts), "lab-2")


def test_where_a_replica_is(three: Hosts) -> None:
    """What these tests stand on."""
    assert there(three)["tiny-0"] == "lab-1"
    assert follows_clock(made.current(three), "lab-2")
