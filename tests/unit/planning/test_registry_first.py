"""A Ray cluster from a bundle: the registry that has its image is filled and started before any host pulls."""

from dataclasses import replace
from typing import Any

import pytest
import recorded_facts as made
from own_registry import ADDRESS, BLOB, REGISTRY_IMAGE, pulled, store
from planning_lab import Hosts

from onprem_llm.errors import InvalidError
from onprem_llm.planning.ray_cluster import plan_up
from onprem_llm.planning.registry import plan_registry
from onprem_llm.planning.registry_first import registry_first
from onprem_llm.planning.types import ImageSource, Plan, Wanted
from onprem_llm.probe import parse_current
from onprem_llm.rendering.registry import PROJECT
from onprem_llm.spec.site import parse_site

RAY = "rayproject/ray-llm:2.60.0-py311-cu129"
SITE = parse_site({"registry_dir": "registry", "ray": {"image": RAY}}, "test")
OWN = Wanted((), registry=store(RAY, size=7), registry_image=made.archive(REGISTRY_IMAGE))


def hosts() -> Hosts:
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gateway=n == 1) for n in (1, 2, 3)}
    for name, state in facts.items():
        state["groups"] = ["ray_head"] if name == "lab-1" else ["ray_worker"]
        state["interfaces"] = {state["addresses"][0]: "eth0"}
    return facts


def up(facts: Hosts, image: ImageSource | None = None, own: Wanted = OWN) -> Plan:
    current = parse_current(facts)
    assert current.gateway is not None
    plan = plan_up(SITE, current, current.gateway, image or pulled(RAY)).plan
    return registry_first(SITE, own, current.gateway, plan)


def test_it_is_filled_and_started_before_the_hosts_pull() -> None:
    done = up(hosts())
    assert [step.kind for step in done.steps[:3]] == ["registry", "stage", "ray_image"]
    assert done.steps[0].hosts == ("lab-1",)
    order: Any = done.steps[0].orders["lab-1"]
    assert [file["sha256"] for file in order["store"]["files"]] == [BLOB]
    assert order["images"][0]["archive"], "its own image comes as an archive"
    stage: Any = done.steps[1].orders
    for name in ("lab-1", "lab-2", "lab-3"):
        assert stage[name]["trust"] == {"address": ADDRESS, "ca_host": "lab-1"}
        assert stage[name]["images"][0]["pull"].startswith(f"{ADDRESS}/")
    assert set(done.files["lab-1"]) == {PROJECT, "ray-head"}
    assert done.send_bytes == {"lab-1": 2 * made.GIB + 7}
    assert done.changes[0].subject == PROJECT


def test_a_second_time_changes_nothing_with_the_registry_and_without() -> None:
    facts = hosts()
    after = made.applied(up(facts), facts)
    assert up(after).is_noop
    current = parse_current(after)
    assert current.gateway is not None
    there = plan_registry(SITE, OWN, current.gateway)
    assert there is not None
    assert not there.outcome.needed, "a deploy finds it as it is to be"
    # The last deployment's `down` takes it away; the nodes have their image.
    del after["lab-1"]["projects"][PROJECT]
    assert up(after).is_noop


def test_a_registry_that_lacks_the_image_is_filled_for_a_new_worker() -> None:
    facts = hosts()
    after = made.applied(up(facts), facts)
    del after["lab-1"]["projects"][PROJECT]
    after["lab-3"] = hosts()["lab-3"]
    assert [step.kind for step in up(after).steps[:2]] == ["registry", "stage"]


@pytest.mark.parametrize(
    ("image", "own"),
    [
        (made.archive(RAY), OWN),  # images_dir has it
        (pulled(RAY, "registry.example:5000"), replace(OWN, registry=None)),  # the site has another registry
    ],
)
def test_what_comes_from_elsewhere_wants_none(image: ImageSource, own: Wanted) -> None:
    assert "registry" not in [step.kind for step in up(hosts(), image, own).steps]


def test_its_port_is_another_s() -> None:
    facts = hosts()
    facts["lab-1"]["listeners"].append(
        {"address": made.EVERYWHERE, "port": 5000, "pid": 9, "process": "nginx", "container": None}
    )
    with pytest.raises(InvalidError, match="5000"):
        up(facts)


def test_no_room_for_it() -> None:
    with pytest.raises(InvalidError, match="not enough disk on lab-1"):
        up(hosts(), own=replace(OWN, registry=store(RAY, size=10**15)))
