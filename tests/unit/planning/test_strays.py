"""Blobs of an image whose chain was cut off, and that nobody passes on again: they go with the next plan."""

from dataclasses import replace
from typing import Any

import pytest
import recorded_facts as made
from image_site import ALL, REGISTRY_IMAGE, again, deployed, planned, shown, site, steps, wanted
from planning_lab import Hosts, lab, model

from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan
from onprem_llm.probe import parse_current
from onprem_llm.rendering.registry import PROJECT
from onprem_llm.spec.site import parse_site
from onprem_llm.uninstalling import plan_removal

ENTRY = {"name": PROJECT, "path": "/srv/onprem-llm/registry", "purge": True}


def cut(facts: Hosts, host: str) -> Hosts:
    facts[host]["registry_strays"] = 2 * made.GIB
    return facts


def removed(done: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in done.steps:
        for host, order in step.orders.items() if step.kind == "remove" else ():
            entries: Any = order["projects"]
            found.setdefault(host, []).extend(one for one in entries if one["name"] == PROJECT)
    return found


def test_a_hosts_own_registry_is_rid_of_them_and_keeps_what_it_serves() -> None:
    after = deployed(lab(1, 1, 1))
    done = planned(cut(after, "lab-2"))
    assert steps(done) == [("registry", ("lab-2",))]
    order: Any = done.steps[0].orders["lab-2"]
    assert order["store"]["keep"]
    assert not order["projects"][0]["recreate"]
    (change,) = [one for one in done.changes if one.action != "keep"]
    assert "2.1 GB there are of no image" in change.reasons[0]
    assert planned(made.applied(done, after)).is_noop


def test_a_host_that_never_had_a_registry_is_rid_of_the_folder() -> None:
    """Its first chain was cut off, and the replica went elsewhere: to the gateway host's."""
    one = model("replicas: 1\n", resources=", hosts: [lab-1]")
    after = deployed(lab(1, 1, 1), one)
    assert PROJECT not in after["lab-3"]["projects"]
    done = planned(cut(after, "lab-3"), one)
    assert removed(done) == {"lab-3": [ENTRY]}
    assert ("lab-3", PROJECT, "remove") in shown(done)
    assert planned(made.applied(done, after), one).is_noop


def test_a_host_that_gets_the_image_goes_on_from_there() -> None:
    done = planned(cut(lab(1, 1, 1), "lab-2"))
    assert not removed(done)
    assert ("lab-2", PROJECT, "create") in shown(done)


def test_the_gateway_hosts_are_the_next_deploys() -> None:
    after = cut(deployed(lab(1, 1, 1)), "lab-1")
    assert planned(after).is_noop
    assert not removed(planned(cut(lab(1, 1, 1), "lab-1")))


def test_without_the_setting_they_go_everywhere() -> None:
    facts = cut(cut(lab(1, 1, 1), "lab-1"), "lab-2")
    ask = replace(
        wanted(facts, item=made.deployment(model("replicas: 3\n"), image=made.archive(made.VLLM_IMAGE))),
        registry=None, registry_image=None, gateway_image=made.archive(made.GATEWAY_IMAGE),
    )  # fmt: skip
    done = plan(parse_site({"open_webui": {"enabled": False}}, "test"), ask, parse_current(facts))
    assert removed(done) == {"lab-1": [ENTRY], "lab-2": [ENTRY]}


@pytest.mark.parametrize(("purge", "hosts"), [(False, {"lab-3"}), (True, {"lab-1", "lab-3"})])
def test_the_last_down_takes_them(purge: bool, hosts: set[str]) -> None:
    one = model("replicas: 1\n", resources=", hosts: [lab-1]")
    after = cut(cut(deployed(lab(1, 1, 1), one), "lab-1"), "lab-3")
    del after["lab-1"]["projects"][PROJECT]
    ask = made.without(after, "tiny", purge=purge)
    ask = replace(ask, ui_image=None, registry=ALL, registry_image=made.archive(REGISTRY_IMAGE))
    done = plan(site(), ask, parse_current(after))
    assert {host for host, entries in removed(done).items() if ENTRY in entries} == hosts


def test_uninstall_takes_them() -> None:
    current = parse_current(cut(lab(1, 1), "lab-2"))
    orders = plan_removal(current, site(), purge=False, purge_deployments=True).orders
    assert orders["lab-2"]["projects"] == [ENTRY]
    assert orders["lab-1"]["projects"] == []


def test_a_plan_is_of_hosts_that_have_them_or_not() -> None:
    after = deployed(lab(1, 1, 1))
    before = parse_current(after).digest()
    assert parse_current(cut(after, "lab-2")).digest() != before


def test_a_scale_that_takes_the_last_replica_takes_all() -> None:
    after = cut(deployed(lab(1, 1, 1)), "lab-3")
    done = planned(after, item=again(after, replicas=2), verb="scale")
    assert removed(done)["lab-3"] == [ENTRY]
