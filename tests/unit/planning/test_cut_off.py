"""A change that was cut off (kill -9, a second Ctrl-C): what it began is let in still, and no number is given twice."""

from dataclasses import replace

import pytest
import recorded_facts as made
from planning_lab import Hosts, changed, deploy, fewest, lab, label, model

from onprem_llm.errors import InvalidError
from onprem_llm.planning.hosts_change import plan_drain
from onprem_llm.planning.plan import plan
from onprem_llm.spec.site import Site

TEXT = model("replicas: 3\n")
ALL = {"tiny-0", "tiny-1", "tiny-2"}
# After one wave, after two, after the last one, once the gateway was told of the new revision alone.
CUTS = ["Return tiny-0", "Return tiny-1", "Return tiny-2", "Tell the gateway"]


def cut_off(title: str, facts: Hosts | None = None) -> Hosts:
    facts = facts or deploy(lab(4, 4), TEXT)
    return made.cut_off(made.planned(facts, made.deployment(changed(TEXT))), facts, title)


@pytest.mark.parametrize("title", CUTS)
def test_another_deployment_takes_none_of_it_out(title: str) -> None:
    facts = cut_off(title)
    other = made.planned(facts, made.deployment(model(name="other", port=8100)))
    before = made.in_rotation(facts, "tiny")
    assert fewest(other, facts) == len(before)
    after = made.applied(other, facts)
    assert made.in_rotation(after, "tiny") == ALL
    down = plan(Site(), made.without(after, "other"), made.current(after))
    assert made.in_rotation(made.applied(down, after), "tiny") == ALL


@pytest.mark.parametrize("title", CUTS)
def test_a_host_is_drained_and_the_others_serve_on(title: str) -> None:
    facts = cut_off(title)
    current = made.current(facts)
    assert current.gateway is not None
    wanted = replace(made.without(facts, "other"), remove=None, verb="host")
    drained = made.applied(plan_drain(Site(), wanted, current, current.gateway, "lab-2"), facts)
    assert made.in_rotation(drained, "tiny") == {p for p in facts["lab-1"]["projects"] if p.startswith("tiny")}


@pytest.mark.parametrize("title", CUTS[:-1])
@pytest.mark.parametrize("text", [TEXT, changed(TEXT), changed(TEXT, 512)], ids=["the old", "the same", "another"])
def test_a_deploy_goes_on_from_there_with_one_away_at_most(text: str, title: str) -> None:
    facts = cut_off(title)
    again = made.planned(facts, made.deployment(text))
    assert not again.is_noop
    assert fewest(again, facts) == (3 if (text, title) == (changed(TEXT), "Return tiny-2") else 2)
    after = made.applied(again, facts)
    assert made.in_rotation(after, "tiny") == ALL
    assert after["lab-1"]["book"]["deployments"]["tiny"]["pending"] == []
    assert made.planned(after, made.deployment(text)).is_noop


def test_cut_off_twice_all_three_revisions_are_let_in() -> None:
    facts = cut_off("Return tiny-0")
    second = made.planned(facts, made.deployment(changed(TEXT, 512)))
    facts = made.cut_off(second, facts, "Replace tiny-1 (2 of 3)")
    other = made.planned(facts, made.deployment(model(name="other", port=8100)))
    assert made.in_rotation(made.applied(other, facts), "tiny") == ALL
    assert {label(facts, project, "revision") for project in ALL} == {"1", "3"}
    assert facts["lab-1"]["book"]["deployments"]["tiny"]["pending"] == [2, 3]


def test_a_limit_that_hides_what_may_run_either_is_refused() -> None:
    facts = cut_off("Return tiny-1")
    with pytest.raises(InvalidError, match=r"revision 2 .*--limit leaves out .*tiny-1 on lab-2") as raised:
        made.planned(facts, made.deployment(TEXT), left_out=["lab-2"])
    assert "without --limit" in (raised.value.hint or "")
    other = made.planned(facts, made.deployment(model(name="other", port=8100)), left_out=["lab-2"])
    after = {**made.applied(other, {"lab-1": facts["lab-1"]}), "lab-2": facts["lab-2"]}
    assert made.in_rotation(after, "tiny") == ALL


def test_the_record_and_the_way_back_end_it_and_the_number_stays_given() -> None:
    facts = deploy(lab(4, 4), TEXT)
    first = made.planned(facts, made.deployment(changed(TEXT)))
    begun, *_, recorded = [step.title for step in first.steps]
    assert (begun, recorded) == ("Write that revision 2 begins", "Write the book")
    done = made.applied(first, facts)["lab-1"]["book"]["deployments"]["tiny"]
    assert (done["revision"], done["pending"], done["last"]) == (2, [], 2)
    failed = made.failed_at(first, facts, "Replace tiny-1 (2 of 3)")
    entry = failed["lab-1"]["book"]["deployments"]["tiny"]
    assert (entry["revision"], entry["pending"], entry["last"]) == (1, [], 2)
    assert made.planned(failed, made.deployment(TEXT)).is_noop
    assert made.planned(failed, made.deployment(changed(TEXT, 512))).revision == 3


def test_a_host_that_was_off_does_not_bring_what_failed_into_rotation() -> None:
    text = model("replicas: 2\nupdate: {max_surge: 0}\n")
    facts = deploy(lab(2, 2), text)
    bad = made.planned(facts, made.deployment(changed(text)))
    title = "Replace tiny-1 (2 of 2)"
    off = made.cut_off(bad, facts, title)["lab-2"]
    facts = {**made.failed_at(bad, facts, title), "lab-2": off}
    mended = made.planned(facts, made.deployment(changed(text, 512)), unreachable=["lab-2"])
    after = {**made.applied(mended, {"lab-1": facts["lab-1"]}), "lab-2": off}
    assert label(after, "tiny-1", "revision") == "2"
    assert made.in_rotation(after, "tiny") == {"tiny-0"}


def test_the_other_gateway_host_knows_too() -> None:
    facts = lab(4, 4)
    facts["lab-2"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    facts = deploy(facts, TEXT)
    first = made.planned(facts, made.deployment(changed(TEXT)))
    cut = made.cut_off(first, facts, "Return tiny-0")
    assert cut["lab-2"]["book"]["deployments"]["tiny"]["pending"] == [2]
    failed = made.failed_at(first, facts, "Replace tiny-0 (1 of 3)")
    assert made.planned(failed, made.deployment(TEXT)).is_noop


def test_no_number_is_taken_where_no_replica_gets_it() -> None:
    facts = deploy(lab(4, 4), TEXT)
    for text in (TEXT, TEXT + "routing: session\n", TEXT.replace("replicas: 3", "replicas: 2")):
        assert "pending" not in [step.kind for step in made.planned(facts, made.deployment(text)).steps]
    first = made.planned(lab(4, 4), made.deployment(TEXT))
    assert "pending" not in [step.kind for step in first.steps]
