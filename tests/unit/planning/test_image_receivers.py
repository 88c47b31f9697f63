"""Hosts that cannot have a registry of their own: they pull from the gateway host's, unless the site insists."""

from dataclasses import replace

import pytest
import recorded_facts as made
from image_site import ADDRESS, BIG, LOOPBACK, REGISTRY_IMAGE, Hosts, chain_of, names, planned, site, wanted
from planning_lab import lab, listener, model

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import ImageSource
from onprem_llm.probe import parse_current

GATEWAY, OWN = ADDRESS, LOOPBACK
FOUR = model("replicas: 4\n")
ALWAYS = site(fan_out="always")


def taken(facts: Hosts, *hosts: str) -> Hosts:
    for name in hosts:
        facts[name]["listeners"].append({**listener(5000, "other"), "address": "127.0.0.1"})
    return facts


def with_room(facts: Hosts, host: str, free: int) -> Hosts:
    for disk in facts[host]["disks"].values():
        disk["free"] = free
    return facts


def room_needed(*, chained: bool) -> int:
    """What lab-3 needs: its weights; in the chain also the registry's image twice, the blobs, and what docker pulls."""
    weights = made.weights("tiny").bytes
    return weights + 2 * (2 * made.GIB) + 2 * (BIG + 7) if chained else weights


def addresses(facts: Hosts) -> dict[str, str]:
    return {host: name.partition("/")[0] for host, name in names(planned(facts)).items()}


def test_one_whose_port_is_anothers_pulls_from_the_gateway_and_the_others_pass_it_on() -> None:
    facts = taken(lab(1, 1, 1, 1), "lab-3")
    done = planned(facts, FOUR)
    step = chain_of(done)
    assert step is not None
    assert step.hosts == ("lab-1", "lab-2", "lab-4")
    found = {host: name.partition("/")[0] for host, name in names(done).items()}
    assert found == {"lab-1": GATEWAY, "lab-2": OWN, "lab-3": GATEWAY, "lab-4": OWN}
    assert not [one for one in done.changes if one.host == "lab-3" and one.subject == "registry"]


def test_where_all_have_another_there_nobody_passes_it_on() -> None:
    assert set(addresses(taken(lab(1, 1, 1), "lab-2", "lab-3")).values()) == {GATEWAY}


def test_one_receiver_that_is_left_is_not_worth_a_chain() -> None:
    assert set(addresses(taken(lab(1, 1, 1), "lab-3")).values()) == {GATEWAY}


def test_a_replica_that_gets_the_port_in_this_plan_counts_too() -> None:
    text = model("replicas: 2\nlisten: all\n", port=5000, resources=", hosts: [lab-2, lab-3]")
    done = planned(lab(1, 1, 1), text)
    assert {name.partition("/")[0] for name in names(done).values()} == {GATEWAY}


@pytest.mark.parametrize(("short", "chained"), [(0, True), (1, False)])
def test_one_without_room_for_the_blobs_pulls_from_the_gateway(short: int, chained: bool) -> None:
    facts = with_room(lab(1, 1, 1), "lab-3", room_needed(chained=True) - short)
    assert addresses(facts)["lab-3"] == (OWN if chained else GATEWAY)


def test_one_without_room_for_the_weights_is_refused_for_those() -> None:
    facts = with_room(lab(1, 1, 1), "lab-3", room_needed(chained=False) - 1)
    with pytest.raises(InvalidError, match="not enough disk on lab-3") as refused:
        planned(facts)
    assert "registry" not in refused.value.message
    assert "fan_out" not in str(refused.value.hint)
    with pytest.raises(InvalidError, match="not enough disk on lab-3") as refused:
        planned(facts, settings=ALWAYS)
    assert "fan_out" not in str(refused.value.hint), "that would not help"


def test_a_site_that_insists_names_who_has_the_port_and_both_settings() -> None:
    with pytest.raises(InvalidError, match="port 5000 is in use on lab-3: other") as refused:
        planned(taken(lab(1, 1, 1), "lab-3"), settings=ALWAYS)
    assert "onprem_llm_site.registry_port" in str(refused.value.hint)
    assert "onprem_llm_site.fan_out: auto" in str(refused.value.hint)


def test_a_site_that_insists_says_what_there_must_be_room_for() -> None:
    facts = with_room(lab(1, 1, 1), "lab-3", room_needed(chained=True) - 1)
    with pytest.raises(InvalidError, match=r"not enough disk on lab-3: .* of the registry") as refused:
        planned(facts, settings=ALWAYS)
    assert "of images in /" in refused.value.message
    assert "onprem_llm_site.fan_out: auto" in str(refused.value.hint)


def test_a_port_of_the_gateway_host_is_refused_whatever_the_setting() -> None:
    for setting in ("auto", "always"):
        facts = lab(1, 1, 1)
        facts["lab-1"]["listeners"].append(listener(5000, "other"))
        with pytest.raises(InvalidError, match="port 5000 is in use on lab-1: other") as refused:
            planned(facts, settings=site(fan_out=setting))
        assert "fan_out" not in str(refused.value.hint)


def test_one_that_has_the_registrys_image_already_needs_no_archive() -> None:
    facts = lab(1, 1, 1, 1)
    for name in ("lab-1", "lab-2", "lab-4"):
        facts[name]["images"].append({"id": made.image_id(REGISTRY_IMAGE), "tags": [REGISTRY_IMAGE], "digests": []})
    ask = replace(wanted(facts, FOUR), registry_image=ImageSource(REGISTRY_IMAGE))
    step = chain_of(plan(site(), ask, parse_current(facts)))
    assert step is not None
    assert step.hosts == ("lab-1", "lab-2", "lab-4")
