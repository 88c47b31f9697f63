"""The gateway that is not as it should be, what guards the engines, and deployments side by side."""

import pytest
import recorded_facts as made
from planning_lab import Hosts, deploy, gateway_gone, lab, model

from onprem_llm.planning.plan import plan


def test_two_deployments_know_nothing_of_each_other() -> None:
    first, second = model("replicas: 2\n"), model("replicas: 2\n", name="second", port=8100)
    facts = deploy(deploy(lab(4, 4), first), second)
    assert made.planned(facts, made.deployment(first)).is_noop
    assert made.planned(facts, made.deployment(second)).is_noop
    changed = made.planned(facts, made.deployment(second.replace("8192", "1024")))
    for _, then in made.moments(changed, facts):
        assert made.in_rotation(then, "tiny") == {"tiny-0", "tiny-1"}
    down = plan(made.Site(), made.without(facts, "second"), made.current(facts))
    after = made.applied(down, facts)
    assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1"}
    assert made.planned(after, made.deployment(first)).is_noop


def gateway_exited(facts: Hosts) -> None:
    facts["lab-1"]["projects"]["gateway"]["containers"][0].update(state="exited", health=None)
    facts["lab-1"]["gateway"].update(running=False, error="no socket", servers={})


def gateway_silent(facts: Hosts) -> None:
    facts["lab-1"]["gateway"].update(running=False, error="the socket does not answer", servers={})


def gateway_behind(facts: Hosts) -> None:
    facts["lab-1"]["gateway"]["pending_reload"] = True


def left_drained(facts: Hosts) -> None:
    facts["lab-1"]["gateway"]["servers"]["tiny/tiny-0"]["admin"] = "drain"


def route_edited(facts: Hosts) -> None:
    facts["lab-1"]["projects"]["gateway"]["files"]["conf/models.map"] = "0" * 64


def key_of_the_page_gone(facts: Hosts) -> None:
    del facts["lab-1"]["client_keys"]["open-webui"]


def certificate_of_another_name(facts: Hosts) -> None:
    facts["lab-1"]["certificates"]["gateway"]["names"] = ["old.example.com"]


@pytest.mark.parametrize(
    ("touch", "reason"),
    [
        (gateway_gone, "routes to tiny"),
        (gateway_exited, "container is exited"),
        (gateway_silent, "its process does not answer"),
        (gateway_behind, "it has not read its files"),
        (left_drained, "out of rotation: tiny/tiny-0"),
        (route_edited, "its routes or settings change"),
        (key_of_the_page_gone, "its keys or certificate"),
        (certificate_of_another_name, "its keys or certificate"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_gateway_that_is_not_as_it_should_be_is_mended(touch, reason: str) -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    before = made.current(facts).digest()
    touch(facts)
    assert made.current(facts).digest() != before
    plan = made.planned(facts, made.deployment(model("replicas: 2\n")))
    assert "gateway" in [step.kind for step in plan.steps]
    (change,) = [change for change in plan.changes if change.subject == "gateway"]
    assert change.action != "keep"
    assert reason in " ".join(change.reasons)
    after = made.applied(plan, facts)
    assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1"}
    assert made.planned(after, made.deployment(model("replicas: 2\n"))).is_noop


def test_a_gateway_that_answers_is_not_waited_for() -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    # Docker calls it starting until its first health check, ten seconds on.
    facts["lab-1"]["projects"]["gateway"]["containers"][0]["health"] = "starting"
    assert made.planned(facts, made.deployment(model("replicas: 2\n"))).is_noop


def test_an_update_while_no_gateway_runs_drains_nothing_and_starts_it_last() -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    gateway_gone(facts)
    plan = made.planned(facts, made.deployment(model("replicas: 2\n").replace("8192", "1024")))
    assert [step.kind for step in plan.steps] == ["pending", "apply", "apply", "gateway", "record"]
    assert made.in_rotation(made.applied(plan, facts), "tiny") == {"tiny-0", "tiny-1"}


def test_guards_are_set_where_they_are_not_as_they_should_be() -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    facts["lab-2"]["firewall"]["active"] = False
    facts["lab-1"]["certificates"]["engine"]["names"] = ["engine.other"]
    plan = made.planned(facts, made.deployment(model("replicas: 2\n")))
    step, *_ = plan.steps
    assert step.orders["lab-2"]["firewall"] == {"ports": [8000], "sources": ["10.0.0.2"]}
    assert "engine_tls" not in step.orders["lab-2"]
    assert step.orders["lab-1"]["engine_tls"] == {"name": "engine.lab-1", "ca_host": "lab-1"}
    assert "firewall" not in step.orders["lab-1"]
    assert [order["projects"] for order in step.orders.values()] == [[], []]
    assert made.planned(made.applied(plan, facts), made.deployment(model("replicas: 2\n"))).is_noop


def test_the_firewall_keeps_the_ports_of_other_deployments_closed() -> None:
    facts = deploy(deploy(lab(4), model("replicas: 2\n")), model(name="second", port=8100))
    assert facts["lab-1"]["firewall"]["ports"] == [8000, 8001, 8100]


def test_two_gateways_are_told_the_same_and_let_in_both() -> None:
    facts = lab(2, 2, 2)
    facts["lab-2"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    facts = deploy(facts, model("replicas: 3\n"))
    assert facts["lab-3"]["firewall"]["sources"] == ["10.0.0.2", "10.0.0.3"]
    text = model("replicas: 3\n").replace("8192", "1024")
    plan = made.planned(facts, made.deployment(text))
    assert all(set(step.orders) == {"lab-1", "lab-2"} for step in plan.steps if step.kind in {"gateway", "route"})
    after = made.applied(plan, facts)
    assert after["lab-1"]["gateway"]["servers"] == after["lab-2"]["gateway"]["servers"]
    assert made.planned(after, made.deployment(text)).is_noop
    after["lab-2"]["gateway"]["pending_reload"] = True
    (told,) = made.planned(after, made.deployment(text)).steps
    assert (told.kind, set(told.orders)) == ("gateway", {"lab-1", "lab-2"})


def test_a_gateway_host_that_is_new_gets_in_everywhere() -> None:
    facts = deploy(deploy(lab(2, 2, 2), model("replicas: 2\n")), model(name="other", port=8100))
    facts["lab-3"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    after = made.applied(made.planned(facts, made.deployment(model("replicas: 2\n"))), facts)
    walls = [state["firewall"]["sources"] for state in after.values() if state.get("firewall")]
    assert walls == [["10.0.0.2", "10.0.0.4"]] * len(walls)
    assert made.planned(after, made.deployment(model(name="other", port=8100))).is_noop


def test_ports_are_let_go_with_the_last_engine_that_had_them() -> None:
    tiny, other = model("replicas: 2\n"), model(name="other", port=8100, resources=", hosts: [lab-1]")
    facts = deploy(deploy(lab(2, 1), tiny), other)
    assert [facts[host]["firewall"]["ports"] for host in facts] == [[8000, 8100], [8000]]
    fewer = made.applied(made.planned(facts, made.deployment(model())), facts)
    assert [fewer[host]["firewall"]["ports"] for host in facts] == [[8100], [8000]]  # tiny-0 is on lab-2
    assert made.planned(fewer, made.deployment(model())).is_noop
    after = made.applied(plan(made.Site(), made.without(facts, "tiny"), made.current(facts)), facts)
    assert (after["lab-1"]["firewall"]["ports"], after["lab-2"]["firewall"]) == ([8100], None)
    assert made.planned(after, made.deployment(other)).is_noop


def test_a_table_stays_where_something_may_be_an_engine() -> None:
    facts = deploy(deploy(lab(4), model()), model(name="other", port=8100))
    facts["lab-1"]["projects"]["other-0"]["containers"] = []  # `docker compose down` by hand: nobody says its port
    down = plan(made.Site(), made.without(facts, "tiny"), made.current(facts))
    assert made.applied(down, facts)["lab-1"]["firewall"]["ports"] == [8100]
