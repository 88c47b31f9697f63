"""How many replicas may be away: those on drained and silent hosts, and those that are down, count."""

from copy import deepcopy
from dataclasses import replace

import pytest
import recorded_facts as made
from planning_lab import Hosts, changed, deploy, fewest, lab, mark, model, there

from onprem_llm.errors import InvalidError
from onprem_llm.planning.hosts_change import plan_drain
from onprem_llm.planning.types import Plan


def down(facts: Hosts, *projects: str, at: str = "lab-1") -> Hosts:
    for project in projects:
        facts[at]["gateway"]["servers"][f"tiny/{project}"]["up"] = False
    return facts


def two_gateways() -> Hosts:
    facts = lab(1, 1, 1)
    facts["lab-2"]["book"] = {**deepcopy(facts["lab-1"]["book"]), "gateway": False, "second": True}
    return deploy(facts, model("replicas: 3\n"))


def gaps(plan: Plan) -> list[str]:
    return [warning for warning in plan.warnings if "there will be a gap" in warning]


def waves(plan: Plan) -> list[str]:
    return [step.title.partition(" (")[0] for step in plan.steps if step.title.startswith("Replace")]


def test_the_last_one_in_rotation_beside_a_drained_one_gets_a_spare_where_there_is_room() -> None:
    text = model("replicas: 2\n")
    facts = mark(deploy(lab(2, 2), text), "lab-2", "drained")
    plan = made.planned(facts, made.deployment(changed(text)))
    assert fewest(plan, facts) == 1
    assert not gaps(plan)
    after = made.applied(plan, facts)
    assert there(after) == {"tiny-1": "lab-2", "tiny-2": "lab-1"}
    assert made.planned(after, made.deployment(changed(text))).is_noop
    after["lab-1"]["book"]["hosts"] = {}
    back = made.applied(made.planned(after, made.deployment(changed(text))), after)
    assert made.in_rotation(back, "tiny") == {"tiny-1", "tiny-2"}


def test_without_room_for_it_the_gap_is_said() -> None:
    text = model("replicas: 2\n")
    facts = mark(deploy(lab(1, 1), text), "lab-2", "drained")
    (gap,) = gaps(made.planned(facts, made.deployment(changed(text))))
    assert "the one of tiny that serves is replaced (out of rotation already: tiny-1 on lab-2)" in gap


def test_the_last_one_in_rotation_beside_a_silent_one_gets_a_spare_of_a_number_of_its_own() -> None:
    text = model("replicas: 2\n")
    facts = deploy(lab(2, 2), text)
    plan = made.planned(facts, made.deployment(changed(text)), unreachable=["lab-2"])
    assert "tiny-1" not in plan.files["lab-1"]
    assert there(made.applied(plan, facts)) == {"tiny-1": "lab-2", "tiny-2": "lab-1"}
    assert not gaps(plan)


def test_replicas_that_are_away_count_as_missing() -> None:
    text = model("replicas: 4\nupdate: {max_unavailable: 2}\n")
    facts = deploy(lab(1, 1, 1, 1), text)
    assert waves(made.planned(facts, made.deployment(changed(text)))) == [
        "Replace tiny-0, tiny-1", "Replace tiny-2, tiny-3",
    ]  # fmt: skip
    silent = made.planned(facts, made.deployment(changed(text)), unreachable=["lab-4"])
    assert waves(silent) == ["Replace tiny-0", "Replace tiny-1", "Replace tiny-2"]
    assert not [line for line in silent.warnings if "in rotation" in line]
    drained = made.planned(mark(facts, "lab-4", "drained"), made.deployment(changed(text)))
    assert waves(drained) == ["Replace tiny-0", "Replace tiny-1", "Replace tiny-2"]


def test_fewer_than_allowed_are_said() -> None:
    text = model("replicas: 3\n")
    facts = deploy(lab(1, 1, 1), text)
    plan = made.planned(facts, made.deployment(changed(text)), unreachable=["lab-3"])
    (warning,) = [line for line in plan.warnings if "in rotation" in line]
    assert warning.startswith("at times 1 of 3 replicas of tiny will be in rotation")
    assert "tiny-2 on lab-3" in warning


def test_one_that_is_down_is_replaced_before_any_that_serves() -> None:
    text = model("replicas: 3\n")
    facts = down(deploy(lab(1, 1, 1), text), "tiny-1", "tiny-2")
    plan = made.planned(facts, made.deployment(changed(text)))
    assert waves(plan) == ["Replace tiny-1, tiny-2", "Replace tiny-0"]
    assert not gaps(plan)
    assert made.planned(made.applied(plan, facts), made.deployment(changed(text))).is_noop


def test_what_one_gateway_reaches_is_not_down_though_the_other_does_not_reach_it() -> None:
    facts = down(two_gateways(), "tiny-1", "tiny-2", at="lab-2")
    plan = made.planned(facts, made.deployment(changed(model("replicas: 3\n"))))
    assert waves(plan) == ["Replace tiny-0", "Replace tiny-1", "Replace tiny-2"]
    assert fewest(plan, facts) == 2


def test_what_both_gateways_have_for_down_goes_first() -> None:
    facts = down(down(two_gateways(), "tiny-1", "tiny-2"), "tiny-1", at="lab-2")
    plan = made.planned(facts, made.deployment(changed(model("replicas: 3\n"))))
    assert waves(plan) == ["Replace tiny-1", "Replace tiny-0", "Replace tiny-2"]


def test_on_the_way_back_a_gateway_does_not_wait_for_what_it_had_for_down() -> None:
    facts = down(down(two_gateways(), "tiny-1", "tiny-2"), "tiny-1", at="lab-2")
    plan = made.planned(facts, made.deployment(changed(model("replicas: 3\n"))))
    steps = {step.title: step for step in plan.steps}
    waited = {"drain": [], "ready_wait": 30}
    (back,) = steps["Drain tiny-1"].undo
    assert back.orders == {host: {**waited, "ready": [], "let_in": ["tiny/tiny-1"]} for host in ("lab-1", "lab-2")}
    (back,) = steps["Drain tiny-2"].undo
    assert back.orders == {
        "lab-1": {**waited, "ready": [], "let_in": ["tiny/tiny-2"]},
        "lab-2": {**waited, "ready": ["tiny/tiny-2"]},
    }
    assert steps["Return tiny-1"].orders["lab-1"] == {**waited, "ready": ["tiny/tiny-1"]}
    after = made.failed_at(plan, facts, "Replace tiny-1 (1 of 3)")
    assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1", "tiny-2"}  # ready again, once its check passes


def test_one_that_leaves_and_was_down_is_not_waited_for_either() -> None:
    facts = down(deploy(lab(1, 1), model("replicas: 2\n")), "tiny-1")
    plan = made.planned(facts, made.again(facts, "tiny", replicas=1), verb="scale")
    (step,) = [step for step in plan.steps if step.title == "Drain tiny-1"]
    assert [undo.orders["lab-1"]["let_in"] for undo in step.undo if undo.kind == "route"] == [["tiny/tiny-1"]]


def test_where_all_are_down_they_are_replaced_one_after_another_as_ever() -> None:
    text = model("replicas: 2\n")
    facts = down(deploy(lab(1, 1), text), "tiny-0", "tiny-1")
    assert waves(made.planned(facts, made.deployment(changed(text)))) == ["Replace tiny-0", "Replace tiny-1"]


def test_one_that_is_down_is_none_that_is_left_by_a_drain() -> None:
    facts = down(deploy(lab(1, 1), model("replicas: 2\n")), "tiny-0")
    current = made.current(facts)
    assert current.gateway is not None
    wanted = replace(made.wanted(facts, made.again(facts, "tiny")), verb="host", focus=None)
    (warning,) = plan_drain(made.site(), wanted, current, current.gateway, "lab-2").warnings
    assert "tiny is left without any replica in rotation" in warning
    steps = plan_drain(made.site(), wanted, current, current.gateway, "lab-1").steps
    (back,) = [undo for step in steps if step.kind == "route" for undo in step.undo]
    assert back.orders["lab-1"]["let_in"] == ["tiny/tiny-0"]


def test_replicas_that_listen_elsewhere_are_told_after_the_wave_they_are_in() -> None:
    facts = down(deploy(lab(1, 1), model("replicas: 2\n")), "tiny-1")
    plan = made.planned(facts, made.deployment(model("replicas: 2\n", port=9000)))
    assert waves(plan) == ["Replace tiny-1", "Replace tiny-0"]
    assert made.in_rotation(made.applied(plan, facts), "tiny") == {"tiny-0", "tiny-1"}


def test_a_deployment_that_nobody_answers_for_afterwards_is_said() -> None:
    facts = mark(deploy(lab(1), model()), "lab-1", "drained")
    (warning,) = made.planned(facts, made.deployment(model())).warnings
    assert "no replica of tiny (out of rotation already: tiny-0 on lab-1) is in rotation after this" in warning


def test_fewer_are_those_that_serve_and_a_silent_one_leaves_the_book() -> None:
    facts = deploy(lab(1, 1, 1), model("replicas: 3\n"))
    plan = made.planned(facts, made.again(facts, "tiny", replicas=1), verb="scale", unreachable=["lab-3"])
    assert plan.steps[0].title == "Drain tiny-1"
    assert [line.partition(":")[0] for line in plan.warnings] == [
        "tiny-2 on lab-3 is not wanted any more and cannot be removed now"
    ]
    after = made.applied(plan, facts)
    assert made.in_rotation(after, "tiny") == {"tiny-0"}
    # Its host comes back with it running: it gets nothing, whatever else is deployed, and goes with the next deploy.
    assert there(after) == {"tiny-0": "lab-1", "tiny-2": "lab-3"}
    other = made.applied(made.planned(after, made.deployment(model(name="other", gpus=0, port=8100))), after)
    assert made.in_rotation(other, "tiny") == {"tiny-0"}
    back = made.planned(after, made.again(after, "tiny"))
    assert [(c.subject, c.reasons) for c in back.changes if c.action == "remove"] == [
        ("tiny-2", ("it is not wanted any more",))
    ]
    assert there(made.applied(back, after)) == {"tiny-0": "lab-1"}


def test_one_that_is_back_never_takes_the_place_of_one_that_serves() -> None:
    facts = deploy(lab(0, 1, 1), model("replicas: 2\n"))
    assert there(facts) == {"tiny-0": "lab-2", "tiny-1": "lab-3"}
    less = made.planned(facts, made.deployment(model()), unreachable=["lab-2"])
    assert "drain" not in str([step.title for step in less.steps]).lower()
    after = made.applied(less, facts)
    assert made.in_rotation(after, "tiny") == {"tiny-1"}
    back = made.applied(made.planned(after, made.deployment(model())), after)
    assert there(back) == {"tiny-1": "lab-3"}


def test_silent_ones_stay_where_they_are_wanted_beside_those_that_serve() -> None:
    facts = deploy(lab(1, 1, 1), model("replicas: 3\n"))
    plan = made.planned(facts, made.again(facts, "tiny", replicas=2), verb="scale", unreachable=["lab-2", "lab-3"])
    after = made.applied(plan, facts)
    assert set(after["lab-1"]["book"]["deployments"]["tiny"]["placement"]) == {"tiny-0", "tiny-1"}
    assert "tiny-0" in made.in_rotation(after, "tiny")


def test_one_that_can_serve_is_kept_before_one_on_a_drained_host() -> None:
    facts = mark(deploy(lab(0, 1, 1), model("replicas: 2\n")), "lab-2", "drained")
    facts["lab-3"]["projects"]["tiny-1"]["containers"][0].update(state="exited", health=None)
    after = made.applied(made.planned(facts, made.again(facts, "tiny", replicas=1), verb="scale"), facts)
    assert there(after) == {"tiny-1": "lab-3"}


def test_a_limit_scales_down_what_it_reaches_and_leaves_the_others() -> None:
    facts = deploy(lab(1, 1), model("replicas: 2\n"))
    plan = made.planned(facts, made.again(facts, "tiny", replicas=1), verb="scale", left_out=["lab-2"])
    assert there(made.applied(plan, facts)) == {"tiny-1": "lab-2"}
    facts = down(facts, "tiny-1")
    plan = made.planned(facts, made.again(facts, "tiny", replicas=1), verb="scale", left_out=["lab-2"])
    assert made.in_rotation(made.applied(plan, facts), "tiny") == {"tiny-0"}


@pytest.mark.parametrize(("hosts", "replicas"), [((2,), 2), ((2, 2), 4)])
def test_more_gpus_in_fewer_replicas_are_scaled_down_first(hosts: tuple[int, ...], replicas: int) -> None:
    facts = deploy(lab(*hosts), model(f"replicas: {replicas}\n"))
    text = model(f"replicas: {replicas // 2}\n", gpus=2)
    with pytest.raises(InvalidError, match="no host can carry") as raised:
        made.planned(facts, made.deployment(text))
    command = f"onprem-llm scale tiny --replicas {replicas // 2}"
    assert command in (raised.value.hint or "")
    fewer = made.planned(facts, made.again(facts, "tiny", replicas=replicas // 2), verb="scale")
    facts = made.applied(fewer, facts)
    assert len(there(deploy(facts, text))) == replicas // 2


def test_more_replicas_than_there_is_room_for_are_not_told_to_be_fewer() -> None:
    facts = deploy(lab(2), model("replicas: 2\n"))
    with pytest.raises(InvalidError, match="no host can carry tiny-2") as raised:
        made.planned(facts, made.deployment(model("replicas: 3\n")))
    assert "scale" not in (raised.value.hint or "")
