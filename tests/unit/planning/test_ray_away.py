"""Deployments on Ray while hosts are away, or after a run that was killed: what stays, and what is said."""

import pytest
import recorded_facts as made
from recorded_ray import Hosts, cluster, deployed, model, planned, site

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
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
