"""Replicas on hosts that --limit leaves out: they serve on, in the revision that they have."""

import pytest
import recorded_facts as made
from planning_lab import Hosts, changed, conf, deploy, fewest, lab, label, model

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan

FOUR = model("replicas: 4\n")
CHANGED = changed(FOUR)
OUT = ("lab-3", "lab-4")


def planned(facts: Hosts, text: str) -> Plan:
    return made.planned(facts, made.deployment(text), left_out=OUT)


def test_a_change_leaves_them_in_rotation_on_the_revision_that_they_have() -> None:
    facts = deploy(lab(1, 1, 1, 1), FOUR)
    done = planned(facts, CHANGED)
    assert fewest(done, facts) == 3
    assert done.warnings == (
        "not changed, since --limit leaves them out: tiny-2 on lab-3, tiny-3 on lab-4. They stay on revision 1, beside "
        "revision 2, until a deploy without --limit",
    )
    after = made.applied(done, facts)
    assert made.in_rotation(after, "tiny") == {f"tiny-{n}" for n in range(4)}
    assert [label(after, f"tiny-{n}", "revision") for n in range(4)] == ["2", "2", "1", "1"]
    # Nor does a change of another deployment take them out, or the same once more.
    assert planned(after, CHANGED).is_noop
    other = made.planned(after, made.deployment(model(name="other", port=8100, resources=", hosts: [lab-1]", gpus=0)))
    assert ":r(1|2)" in conf(other)
    whole = made.planned(after, made.deployment(CHANGED))
    assert fewest(whole, after) == 3
    end = made.applied(whole, after)
    assert [label(end, f"tiny-{n}", "revision") for n in range(4)] == ["2", "2", "2", "2"]
    assert ":r(2)" in conf(whole)
    assert made.planned(end, made.deployment(CHANGED)).is_noop


def test_one_that_is_silent_beside_them_is_let_in_once_it_was_updated() -> None:
    facts = deploy(lab(1, 1, 1, 1), FOUR)
    done = made.planned(facts, made.deployment(CHANGED), unreachable=["lab-3"], left_out=["lab-4"])
    placement = next(step for step in done.steps if step.kind == "record").orders["lab-1"]["placement"]
    assert [placement[f"tiny-{n}"]["revision"] for n in range(4)] == [2, 2, 2, 1]
    assert [warning for warning in done.warnings if "did not answer" in warning] == [
        "tiny-2 is left as it is: lab-3 did not answer"
    ]


@pytest.mark.parametrize("text", [FOUR, model("replicas: 3\n"), model("replicas: 4\nrouting: session\n")])
def test_nothing_is_said_where_they_would_stay_as_they_are_anyway(text: str) -> None:
    assert planned(deploy(lab(1, 1, 1, 1), FOUR), text).warnings == ()


def test_under_another_name_they_do_not_answer() -> None:
    facts = deploy(lab(1, 1, 1, 1), FOUR)
    (warning, *_) = planned(facts, FOUR + "served_name: small\n").warnings
    assert "they get no requests until then, since they answer to the old name (served_name: tiny -> small)" in warning


def test_a_change_that_reaches_no_replica_is_refused() -> None:
    facts = deploy(lab(1, 1, 1, 1), model("replicas: 1\n", resources=", hosts: [lab-4]"))
    with pytest.raises(InvalidError, match="--limit leaves out the replicas of tiny: tiny-0 on lab-4"):
        planned(facts, model("replicas: 1\n", resources=", hosts: [lab-4]").replace("8192", "1024"))


def test_down_says_that_they_were_left_out() -> None:
    facts = deploy(deploy(lab(2, 1, 1, 1), FOUR), model(name="other", port=8100, gpus=1))
    seen = {name: state for name, state in facts.items() if name not in OUT}
    done = plan(made.Site(), made.without(seen, "tiny"), made.parse_current(seen, OUT, OUT))
    left = "which --limit leaves out: no requests reach it; run this again without --limit"
    assert f"tiny-2 is left running on lab-4, {left}" in done.warnings
    alone = deploy(lab(1, 1, 1, 1), model(name="other", resources=", hosts: [lab-4]"))
    seen = {name: state for name, state in alone.items() if name not in OUT}
    with pytest.raises(InvalidError, match="--limit leaves out where other runs"):
        plan(made.Site(), made.without(seen, "other"), made.parse_current(seen, OUT, OUT))


def test_no_gap_is_said_where_they_go_on_serving() -> None:
    facts = deploy(lab(1, 1, 1, 1), FOUR)
    out = ("lab-2", *OUT)
    done = made.planned(facts, made.deployment(CHANGED), left_out=out)
    assert not [warning for warning in done.warnings if "gap" in warning]
    assert fewest(done, facts) == 3
    for number in (1, 2, 3):
        facts["lab-1"]["gateway"]["servers"][f"tiny/tiny-{number}"]["up"] = False
    done = made.planned(facts, made.deployment(CHANGED), left_out=out)
    assert any("there will be a gap: the one of tiny that serves is replaced" in line for line in done.warnings)
