"""Weights for several hosts: sent once, then passed on. Who is the source, and where the old way stays."""

import json
import re
from typing import Any

import pytest
import recorded_facts as made
from planning_lab import lab, model
from recorded_facts import Facts

from onprem_llm.errors import InvalidError
from onprem_llm.planning.fan_out import PORTS
from onprem_llm.planning.serial import from_json, to_json
from onprem_llm.planning.types import Plan, Step
from onprem_llm.weights.local import sources_of

BIG = 3 * made.GIB


def planned(facts: dict[str, Facts], replicas: int, size: int = BIG, **settings: object) -> Plan:
    item = made.deployment(model(f"replicas: {replicas}\n"), made.weights(size=size))
    return made.planned(facts, item, made.site(**settings))


def one(plan: Plan, kind: str) -> Step | None:
    return next((step for step in plan.steps if step.kind == kind), None)


def weights_sent(plan: Plan) -> dict[str, list[str]]:
    """Which files go from this machine to which host."""
    step = one(plan, "stage")
    orders: Any = step.orders if step else {}
    return {host: order["weights"][0]["send"] for host, order in orders.items() if order["weights"]}


def test_the_first_host_gets_them_from_here_and_passes_them_on() -> None:
    plan = planned(lab(1, 1, 1), 3)
    assert [step.kind for step in plan.steps][:3] == ["stage", "fan_out", "apply"]
    assert weights_sent(plan) == {"lab-1": ["config.json", "model.safetensors"]}
    step = one(plan, "fan_out")
    assert step is not None
    assert list(step.orders) == ["lab-1", "lab-2", "lab-3"]
    orders: dict[str, Any] = dict(step.orders)
    assert orders["lab-1"]["weights"][0]["send"] == []
    assert orders["lab-3"]["weights"][0]["send"] == ["config.json", "model.safetensors"]
    members = [["lab-1", "10.0.0.2"], ["lab-2", "10.0.0.3"], ["lab-3", "10.0.0.4"]]
    assert all(order["chain"] == {"members": members, "port": PORTS[0]} for order in orders.values())
    assert plan.send_bytes["lab-1"] > BIG
    assert plan.send_bytes["lab-2"] < BIG, "it is not sent from here"
    why = [change.reasons for change in plan.changes if change.host == "lab-3" and change.subject.startswith("weights")]
    assert why == [("not there yet", "passed on from lab-1")]
    assert from_json(to_json(plan), "plan.json") == plan


def test_two_hosts_are_enough() -> None:
    plan = planned(lab(1, 1), 2)
    step = one(plan, "fan_out")
    assert step is not None
    assert list(step.orders) == ["lab-1", "lab-2"]


def test_the_store_is_kept_as_it_is_for_what_may_still_be_sent() -> None:
    plan = planned(lab(1, 1, 1), 3)
    assert {str(path) for path in sources_of(plan)} == {"/models/tiny"}


def test_a_host_that_has_them_is_the_source_and_this_machine_sends_none() -> None:
    facts = lab(1, 1, 1)
    manifest = made.weights(size=BIG)
    facts["lab-2"]["weights"][manifest.id] = {
        "path": f"/srv/onprem-llm/weights/{manifest.id}", "files": 2, "bytes": BIG + 700, "drift": [], "complete": True,
    }  # fmt: skip
    plan = planned(facts, 3)
    step = one(plan, "fan_out")
    assert step is not None
    assert list(step.orders) == ["lab-2", "lab-1", "lab-3"]
    assert weights_sent(plan) == {}


@pytest.mark.parametrize(
    ("size", "setting", "passed_on"),
    [(BIG, "auto", True), (5_000_000, "auto", False), (5_000_000, "always", True), (BIG, "never", False)],
)
def test_little_is_sent_from_here_unless_the_site_says_otherwise(size: int, setting: str, passed_on: bool) -> None:
    plan = planned(lab(1, 1, 1), 3, size, fan_out=setting)
    assert (one(plan, "fan_out") is not None) == passed_on
    assert len(weights_sent(plan)) == (1 if passed_on else 3)


def test_a_shared_folder_is_written_once_and_passed_on_by_nobody() -> None:
    plan = planned(lab(1, 1, 1), 3, weights_dir={"path": "/nfs/weights", "shared": True})
    assert one(plan, "fan_out") is None


def test_one_host_is_as_before() -> None:
    plan = planned(lab(1, 1, 1), 1)
    assert one(plan, "fan_out") is None
    assert len(weights_sent(plan)) == 1


def test_hosts_without_an_address_each_get_them_from_here() -> None:
    facts = lab(1, 1, 1)
    for state in facts.values():
        state["addresses"], state["default_address"] = ["10.0.0.9"], "10.0.0.9"
    assert one(planned(facts, 3), "fan_out") is None


def test_a_host_whose_address_has_a_scope_is_in_no_chain() -> None:
    facts = lab(1, 1, 1)
    address = "fe80::1%x;touch pwned;#"
    facts["lab-3"]["addresses"], facts["lab-3"]["default_address"] = [address], address
    assert one(planned(facts, 3), "fan_out") is None


@pytest.mark.parametrize(
    "value",
    [["lab-2", "fe80::1%x;touch pwned;#"], ["lab-2", "fe80::1%eth0"], ["lab-2", "gpu2.lan"], ["lab-2", 7], ["lab-2"],
     "lab-2", ["../lab-2", "10.0.0.3"]],
)  # fmt: skip
def test_an_edited_plan_has_nobody_in_a_chain_but_hosts_with_an_address(value: object) -> None:
    edited = json.loads(to_json(planned(lab(1, 1, 1), 3)))
    at: Any = next(step["orders"] for step in edited["steps"] if step["kind"] == "fan_out")["lab-3"]
    at["chain"]["members"][1] = value
    said = value[-1] if isinstance(value, list) and len(value) == 2 and value[0] == "lab-2" else "lab-2"
    with pytest.raises(InvalidError, match=rf"plan\.json: .*lab-3\.chain\.members\.1: .*{re.escape(str(said))}"):
        from_json(json.dumps(edited), "plan.json")


def test_a_port_that_is_taken_anywhere_is_left_alone() -> None:
    facts = lab(1, 1, 1)
    facts["lab-3"]["listeners"].append({"address": "127.0.0.1", "port": PORTS[0], "pid": 9, "process": "x"})
    step = one(planned(facts, 3), "fan_out")
    assert step is not None
    chain: Any = step.orders["lab-1"]["chain"]
    assert chain["port"] == PORTS[1]


def test_when_it_is_done_there_is_nothing_more_to_do() -> None:
    facts = lab(1, 1, 1)
    item = made.deployment(model("replicas: 3\n"), made.weights(size=BIG))
    after = made.applied(made.planned(facts, item), facts)
    assert made.planned(after, item).is_noop
