"""Deployments on Ray while hosts are away, or after a run that was killed: what stays, and what is said."""

import pytest
import recorded_facts as made
from recorded_ray import RAY, Hosts, cluster, deployed, model, planned, site

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.ray_cluster import plan_up
from onprem_llm.planning.types import Plan
from onprem_llm.ray_running import ray_worries


def down(facts: Hosts, name: str) -> Plan:
    return plan(site(), made.without(facts, name), made.current(facts))


def test_down_while_the_head_does_not_run_is_refused_since_it_may_come_back_with_it() -> None:
    facts = deployed(cluster(), model())
    facts["lab-1"]["projects"]["ray-head"]["containers"][0]["state"] = "restarting"
    with pytest.raises(InvalidError, match="head of the Ray cluster on lab-1 does not run") as refused:
        down(facts, "tiny")
    assert "cluster up" in (refused.value.hint or "")


def test_what_a_first_deploy_left_that_was_killed_is_taken_from_serve() -> None:
    facts = deployed(cluster(), model(name="other"))
    facts = made.cut_off(planned(facts, model()), facts, "Start tiny on Ray")
    assert "tiny" not in made.current(facts).book
    done = down(facts, "tiny")
    assert [step.kind for step in done.steps] == ["gateway", "ray_serve"]
    assert list(made.applied(done, facts)["lab-1"]["serve"]["applications"]) == ["other"]
    (worry,) = ray_worries(made.current(facts), made.current(facts).book)
    assert "onprem-llm down tiny" in worry
    facts["lab-1"]["lock"] = {"owner": "ann@a pid 9 (deploy tiny)", "age": 5, "unit": "u"}
    (worry,) = ray_worries(made.current(facts), made.current(facts).book)
    assert ("does not yet: the run that holds the lock" in worry, "down tiny" in worry) == (True, False)


def _apart() -> Hosts:
    """Return tiny on Ray, whose head is on lab-2 and whose only worker on lab-3; lab-1 is the gateway host."""
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=1, gateway=n == 1) for n in (1, 2, 3)}
    for name, state in facts.items():
        state["groups"] = {"lab-2": ["ray_head"], "lab-3": ["ray_worker"]}.get(name, [])
        state["interfaces"] = {state["addresses"][0]: "eth0"}
    current = made.current(facts)
    assert current.gateway is not None
    facts = made.applied(plan_up(site(), current, current.gateway, made.archive(RAY)).plan, facts)
    facts["lab-2"]["serve"] = {"error": None, "port": None, "proxies": {}, "applications": {}}
    return made.applied(planned(facts, model()), facts)


def test_gateways_move_whatever_the_cluster_is_like() -> None:
    """The plan of a move is what starts the gateway on another host; of Ray it changes nothing."""
    facts = _apart()
    facts["lab-1"]["projects"].pop("gateway")
    facts["lab-1"]["gateway"] = None

    def kinds(**more: object) -> list[str]:
        done = made.planned(facts, made.again(facts, "tiny"), site(), verb="move", gateways_only=True, **more)
        assert (done.revision, done.files["lab-1"]["gateway"] != {}) == (1, True)
        return [step.kind for step in done.steps]

    assert kinds(unreachable=["lab-2"]) == ["gateway"], "the head is silent"
    assert kinds(unreachable=["lab-3"]) == ["gateway"], "its only worker is"
    facts["lab-3"]["projects"]["ray-worker"]["containers"][0]["state"] = "exited"
    facts["lab-3"]["ray_firewall"] = None
    assert kinds() == ["gateway"]
    facts["lab-2"]["serve"]["applications"] = {}
    facts["lab-2"]["projects"].pop("ray-head")
    assert kinds() == ["gateway"]


def test_nodes_let_a_gateway_in_that_moved() -> None:
    facts = _apart()
    facts["lab-3"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    done = made.planned(facts, made.again(facts, "tiny"), site(), verb="move", gateways_only=True)
    (step,) = [step for step in done.steps if step.title == "Let the gateways reach Ray Serve"]
    assert step.hosts == ("lab-2", "lab-3")
    assert "ray_serve" not in [step.kind for step in done.steps]
