"""A second gateway host that is off: what it shares with the first is kept for it."""

import json

import pytest
import recorded_facts as made
from planning_lab import Hosts, mark, model
from test_shared_address import VIP, site

from onprem_llm.planning.types import Plan
from onprem_llm.rendering.keepalived import PROJECT

TINY = model("replicas: 3\n")


def three(*seconds: int) -> Hosts:
    """Return three hosts that run three replicas, with gateways on the first and on `seconds`."""
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=2, gateway=n == 1) for n in (1, 2, 3)}
    for state in facts.values():
        state["interfaces"] = dict.fromkeys(state["addresses"], "eth0")
    for number in seconds:
        facts[f"lab-{number}"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    facts = made.applied(made.planned(facts, made.deployment(TINY), site()), facts)
    assert made.planned(facts, made.deployment(TINY), site()).is_noop
    return facts


def planned(facts: Hosts, text: str = TINY, **unseen: object) -> Plan:
    return made.planned(facts, made.deployment(text), site(), **unseen)


def peers(plan: Plan, host: str = "lab-1") -> list[str]:
    return json.loads(plan.files[host]["gateway"]["conf/peers.json"])["others"]


def sources(facts: Hosts) -> dict[str, list[str]]:
    return {name: state["firewall"]["sources"] for name, state in facts.items() if state["firewall"]}


@pytest.mark.parametrize("seconds", [(2,), (2, 3)])
@pytest.mark.parametrize("how", ["unreachable", "left_out"])
def test_an_unchanged_deploy_changes_nothing(seconds: tuple[int, ...], how: str) -> None:
    assert planned(three(*seconds), **{how: ["lab-2"]}).is_noop


def test_a_change_goes_on_letting_it_in() -> None:
    facts = three(2)
    changed = planned(facts, TINY.replace("8192", "1024"), unreachable=["lab-2"])
    assert "Share" not in str([step.title for step in changed.steps])
    assert peers(changed) == ["10.0.0.3"]
    after = made.applied(changed, facts)
    assert sources(after) == {name: ["10.0.0.2", "10.0.0.3"] for name in facts}
    # A host that is new meanwhile lets it in too.
    facts["lab-4"] = made.host("lab-4", 4, gpus=2)
    grown = planned(facts, model("replicas: 7\n"), unreachable=["lab-2"])
    assert sources(made.applied(grown, facts))["lab-4"] == ["10.0.0.2", "10.0.0.3"]


def test_it_is_known_by_the_engines_where_the_first_gateway_has_lost_its_files() -> None:
    facts = three(2)
    del facts["lab-1"]["projects"]["gateway"]
    facts["lab-1"]["gateway"] = None
    assert peers(planned(facts, unreachable=["lab-2"])) == ["10.0.0.3"]


def test_a_gateway_that_comes_meanwhile_is_added() -> None:
    facts = three(2)
    facts["lab-3"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    added = planned(facts, unreachable=["lab-2"])
    assert peers(added) == ["10.0.0.3", "10.0.0.4"]
    assert peers(added, "lab-3") == ["10.0.0.2", "10.0.0.3"]
    after = made.applied(added, facts)
    assert sources(after)["lab-1"] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    # The silent one does not know it: both would have the shared address.
    assert PROJECT not in after["lab-3"]["projects"]
    assert "once the silent gateway host is back" in str(added.changes)
    assert planned(after, unreachable=["lab-2"]).is_noop
    assert f"Share {VIP} on lab-3" in [step.title for step in planned(after).steps]


def test_keepalived_that_has_stopped_is_started_with_the_silent_one() -> None:
    facts = three(2)
    facts["lab-1"]["projects"][PROJECT]["containers"][0].update(state="exited", health=None)
    result = planned(facts, unreachable=["lab-2"])
    assert [step.title for step in result.steps] == [f"Share {VIP} on lab-1"]
    assert "unicast_peer {\n        10.0.0.3 min_ttl 255\n" in result.files["lab-1"][PROJECT]["keepalived.conf"]


@pytest.mark.parametrize("state", ["lost", "removed"])
def test_one_that_is_gone_for_good_is_let_in_no_more(state: str) -> None:
    facts = mark(three(2), "lab-2", state)
    result = planned(facts, model("replicas: 2\n"), unreachable=["lab-2"])
    assert "conf/peers.json" not in result.files["lab-1"]["gateway"]
    assert "unicast_peer" not in result.files["lab-1"][PROJECT]["keepalived.conf"]
    after = made.applied(result, facts)
    assert after["lab-1"]["firewall"]["sources"] == ["10.0.0.2"]
    assert after["lab-3"]["firewall"]["sources"] == ["10.0.0.2"]


def test_one_that_answers_and_is_no_gateway_any_more_is_let_in_no_more() -> None:
    facts = three(2)
    facts["lab-2"]["book"] = None
    after = made.applied(planned(facts, unreachable=["lab-3"]), facts)
    assert sources({"lab-1": after["lab-1"]}) == {"lab-1": ["10.0.0.2"]}
