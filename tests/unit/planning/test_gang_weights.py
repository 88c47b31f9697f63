"""One revision of the weights on all hosts of a replica: another one in a folder is found before anything starts."""

import pytest
import recorded_facts as made
from gang_lab import actions, gang, hosts
from planning_lab import Hosts

from onprem_llm.errors import InvalidError


@pytest.fixture
def facts() -> Hosts:
    """Return two hosts with a gang, in whose second folder somebody has put a file of another revision."""
    found = hosts(2)
    found = made.applied(made.planned(found, made.deployment(gang())), found)
    (weights,) = found["lab-2"]["weights"].values()
    weights |= {"drift": ["model.safetensors"], "complete": False}
    return found


def test_it_is_refused_with_the_host_and_what_to_do_where_the_right_one_is_not_at_hand(facts: Hosts) -> None:
    with pytest.raises(InvalidError) as raised:
        made.planned(facts, made.again(facts, "wide"), restart=True, verb="restart")
    assert raised.value.message.startswith("lab-2: weight file model.safetensors differs, and this command does not")
    assert raised.value.hint == "deploy with the model.yaml beside which the weights lie"


def test_deploy_says_it_and_sends_the_right_one_to_that_host_before_any_part_starts(facts: Hosts) -> None:
    done = made.planned(facts, made.deployment(gang().replace("8192", "1024")))
    said = [(one.host, one.reasons) for one in done.changes if one.subject.startswith("weights ")]
    assert said == [("lab-2", ("weight file model.safetensors differs",))]
    assert actions(done) == {"wide-0": "update", "wide-0-rank1": "update"}
    kinds = [step.kind for step in done.steps]
    (stage,) = [step for step in done.steps if any(order.get("weights") for order in step.orders.values())]
    assert kinds.index(stage.kind) < kinds.index("apply")
    assert [host for host, order in stage.orders.items() if order["weights"]] == ["lab-2"]
