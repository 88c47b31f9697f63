"""Certificates that end soon are renewed on the way of a change, and engines start anew to take theirs."""

from typing import cast, get_args

import pytest
import recorded_facts as made
from planning_lab import Hosts, deploy, lab, model, there

from onprem_llm.errors import InvalidError
from onprem_llm.planning.types import Plan, Verb

TEXT = model("replicas: 2\n")
DAY = 86400
SOON = made.STARTED + 29 * DAY


def ending(facts: Hosts, host: str, kind: str, *, now: int = made.STARTED + DAY, end: int = SOON) -> Hosts:
    for state in facts.values():
        state["host"]["now"] = now
    facts[host]["certificates"][kind]["not_after"] = end
    return facts


def test_an_engines_certificate_is_renewed_and_taken_up_by_a_rolling_restart() -> None:
    facts = deploy(lab(2, 2), TEXT)
    before = made.current(facts).digest()
    ending(facts, "lab-2", "engine")
    assert made.current(facts).digest() != before
    plan = made.planned(facts, made.deployment(TEXT))
    assert plan.steps[0].orders["lab-2"]["engine_tls"] == {"name": "engine.lab-2", "ca_host": "lab-1"}
    (renewed,) = [change for change in plan.changes if change.subject == "certificate of the engines"]
    assert (renewed.host, renewed.reasons) == ("lab-2", ("it ends on 2026-12-20: it is renewed",))
    restarted = {change.subject: change.reasons for change in plan.changes if change.action == "restart"}
    assert restarted == {"tiny-1": ("the certificate of its host's engines is renewed",)}
    titles = [step.title for step in plan.steps]
    assert titles == ["Start tiny", "Drain tiny-1", "Replace tiny-1", "Return tiny-1", "Tell the gateway"]
    (project,) = plan.steps[2].orders["lab-2"]["projects"]
    assert project["recreate"]
    assert made.planned(made.applied(plan, facts), made.deployment(TEXT)).is_noop


def test_a_certificate_that_lasts_is_left_alone() -> None:
    facts = ending(deploy(lab(2, 2), TEXT), "lab-2", "engine", end=made.STARTED + 32 * DAY)
    assert made.planned(facts, made.deployment(TEXT)).is_noop


def test_an_engine_that_started_before_its_certificate_was_renewed_starts_anew() -> None:
    facts = deploy(lab(2, 2), TEXT)
    facts["lab-2"]["certificates"]["engine"]["written"] = made.STARTED - 1
    assert made.planned(facts, made.deployment(TEXT)).is_noop
    facts["lab-2"]["certificates"]["engine"]["written"] = made.STARTED + 1
    plan = made.planned(facts, made.deployment(TEXT))
    restarted = {change.subject: change.reasons for change in plan.changes if change.action == "restart"}
    assert restarted == {"tiny-1": ("it started before the certificate of its host's engines was renewed",)}
    facts["lab-2"]["host"]["now"] = made.STARTED + 2
    assert made.planned(made.applied(plan, facts), made.deployment(TEXT)).is_noop


def test_one_that_ends_with_the_authority_is_not_renewed_again_and_again() -> None:
    facts = ending(deploy(lab(2, 2), TEXT), "lab-2", "engine")
    facts["lab-1"]["certificates"]["ca"] = {"not_after": SOON + DAY, "names": []}
    assert made.planned(facts, made.deployment(TEXT)).is_noop


def test_the_gateways_certificate_is_renewed() -> None:
    facts = ending(deploy(lab(2, 2), TEXT), "lab-1", "gateway")
    plan = made.planned(facts, made.deployment(TEXT))
    (step,) = plan.steps
    assert step.orders["lab-1"]["tls"]["mode"] == "ca"
    (renewed,) = [change for change in plan.changes if change.subject == "certificate of the gateway"]
    assert renewed.reasons == ("it ends on 2026-12-20: it is renewed",)
    assert made.planned(made.applied(plan, facts), made.deployment(TEXT)).is_noop


def test_another_deployments_replicas_there_are_named_and_rolled_by_their_own_deploy() -> None:
    other = model("replicas: 2\n", name="other", port=8100)
    facts = ending(deploy(deploy(lab(4, 4), TEXT), other), "lab-2", "engine")
    plan = made.planned(facts, made.deployment(TEXT))
    assert [text for text in plan.warnings if "certificate" in text] == [
        "other-0 on lab-2 goes on with the certificate that ends until it starts anew: onprem-llm restart other"
    ]
    after = made.applied(plan, facts)
    assert made.planned(after, made.deployment(TEXT)).is_noop
    rolled = made.planned(after, made.deployment(other))
    assert {change.subject for change in rolled.changes if change.action == "restart"} == {"other-0"}


def renewed_since(facts: Hosts, host: str) -> Hosts:
    """As `tls renew` leaves a host: its engines go on with the one before."""
    facts[host]["certificates"]["engine"]["written"] = made.STARTED + 1
    return facts


def old_ones(plan: Plan) -> list[str]:
    return [text for text in plan.warnings if "certificate" in text]


@pytest.mark.parametrize("verb", ["move", "scale", "rollback"])
@pytest.mark.parametrize("ends", [False, True])
def test_only_deploy_and_restart_start_engines_anew_for_it(verb: str, ends: bool) -> None:
    facts = deploy(lab(1, 0), model())  # no room for a second one: a restart would be a gap
    (host,) = there(facts).values()
    facts = ending(facts, host, "engine") if ends else renewed_since(facts, host)
    assert [c.subject for c in made.planned(facts, made.deployment(model())).changes if c.action == "restart"]
    plan = made.planned(facts, made.again(facts, "tiny"), verb=cast("Verb", verb))
    assert verb in get_args(Verb)
    assert [step.title for step in plan.steps] == (["Start tiny"] if ends else [])  # which renews it
    assert old_ones(plan) == [
        f"tiny-0 on {host} goes on with an old certificate until it starts anew: onprem-llm restart tiny"
    ]
    after = renewed_since(made.applied(plan, facts), host)
    assert [c.subject for c in made.planned(after, made.deployment(model())).changes if c.action == "restart"]


def test_where_none_may_be_missing_and_no_other_has_room_it_goes_on_with_the_old_one() -> None:
    text = model("replicas: 2\nupdate: {max_unavailable: 0}\n")
    facts = renewed_since(deploy(lab(1, 1), text), "lab-2")
    plan = made.planned(facts, made.deployment(text))
    assert plan.is_noop
    assert old_ones(plan) == [
        "tiny-1 on lab-2 goes on with an old certificate: update.max_unavailable of tiny is 0, and there is no room "
        "for a replica more; free a GPU on a host that has the weights, or set max_unavailable to 1, and deploy again"
    ]
    with pytest.raises(InvalidError, match="there is no room for a replica more"):
        made.planned(facts, made.deployment(text.replace("8192", "1024")))


def test_with_room_for_another_one_it_takes_the_new_one_though_none_may_be_missing() -> None:
    text = model("replicas: 2\nupdate: {max_unavailable: 0}\n")
    facts = renewed_since(deploy(lab(1, 2), text), "lab-2")
    plan = made.planned(facts, made.deployment(text))
    assert not old_ones(plan)
    assert not plan.is_noop
    assert all(len(made.in_rotation(then, "tiny")) >= 2 for _, then in made.moments(plan, facts))
