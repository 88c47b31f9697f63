"""RDMA ports that come and go: a gang that stands goes on with those that it was started with."""

import pytest
import recorded_facts as made
from gang_lab import actions, gang, hosts, service
from planning_lab import Hosts

from onprem_llm.planning.types import Plan
from onprem_llm.probe import parse_current


def planned(facts: Hosts, text: str = "", **more: object) -> Plan:
    return made.planned(facts, made.deployment(text or gang()), **more)  # type: ignore[arg-type]


def ports(done: Plan) -> list[str | None]:
    """Return what NCCL is told on each host."""
    return [service(done, project)["environment"].get("NCCL_IB_HCA") for project in ("wide-0", "wide-0-rank1")]


@pytest.fixture
def facts() -> Hosts:
    """Return two hosts with a gang that talks through two ports of each."""
    found = hosts(2)
    for state in found.values():
        state["rdma"] = {"mlx5_0:1": True, "mlx5_1:1": True}
    return made.applied(planned(found), found)


def test_a_port_that_flaps_changes_nothing_and_refuses_no_plan(facts: Hosts) -> None:
    before = parse_current(facts).digest()
    facts["lab-2"]["rdma"]["mlx5_1:1"] = False
    done = planned(facts)
    assert done.is_noop
    assert parse_current(facts).digest() == before
    assert ports(done) == ["=mlx5_0:1,mlx5_1:1"] * 2


def test_a_gang_on_its_way_is_left_alone_too(facts: Hosts) -> None:
    for state in facts.values():
        for name, project in state["projects"].items():
            if name.startswith("wide-0"):
                project["containers"][0]["health"] = "starting"
    facts["lab-2"]["rdma"]["mlx5_1:1"] = False
    assert set(actions(planned(facts)).values()) == {"wait"}


def test_all_of_a_hosts_ports_down_change_nothing_either(facts: Hosts) -> None:
    facts["lab-2"]["rdma"] = dict.fromkeys(facts["lab-2"]["rdma"], False)
    assert planned(facts).is_noop


def test_a_port_that_comes_up_later_is_taken_when_the_gang_starts_anew() -> None:
    facts = hosts(2)
    for state in facts.values():
        state["rdma"] = {"mlx5_0:1": True, "mlx5_1:1": False}
    facts = made.applied(planned(facts), facts)
    for state in facts.values():
        state["rdma"]["mlx5_1:1"] = True
    assert planned(facts).is_noop
    again = planned(facts, restart=True)
    assert ports(again) == ["=mlx5_0:1,mlx5_1:1"] * 2
    assert planned(made.applied(again, facts)).is_noop


def test_what_starts_anew_takes_what_is_up(facts: Hosts) -> None:
    facts["lab-2"]["rdma"]["mlx5_1:1"] = False
    longer = gang().replace("8192", "1024")
    done = planned(facts, longer)
    assert ports(done) == ["=mlx5_0:1,mlx5_1:1", "=mlx5_0:1"]
    then = made.applied(done, facts)
    then["lab-2"]["rdma"]["mlx5_1:1"] = True
    assert planned(then, longer).is_noop


def test_a_card_that_is_gone_starts_the_gang_anew_and_refuses_the_plan_from_before(facts: Hosts) -> None:
    before = parse_current(facts).digest()
    del facts["lab-2"]["rdma"]["mlx5_1:1"]
    assert parse_current(facts).digest() != before
    done = planned(facts)
    assert actions(done) == {"wide-0": "update", "wide-0-rank1": "update"}
    assert ports(done) == ["=mlx5_0:1,mlx5_1:1", "=mlx5_0:1"]


def test_a_gang_without_rdma_stays_without_until_it_starts_anew() -> None:
    facts = hosts(2)
    facts = made.applied(planned(facts), facts)
    for state in facts.values():
        state["rdma"] = {"mlx5_0:1": True}
    assert planned(facts).is_noop
    assert ports(planned(facts, gang().replace("8192", "1024"))) == ["=mlx5_0:1"] * 2
