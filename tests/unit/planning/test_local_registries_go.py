"""Hosts' own registries: when they go, and their images with them."""

from dataclasses import replace
from typing import Any

import pytest
import recorded_facts as made
from image_site import (
    ALL,
    REGISTRY_IMAGE,
    THREE,
    again,
    deployed,
    planned,
    shown,
    site,
    wanted,
)
from planning_lab import lab, model, there

from onprem_llm.planning.plan import plan
from onprem_llm.probe import parse_current
from onprem_llm.rendering.registry import PROJECT
from onprem_llm.spec.site import parse_site


def test_they_go_with_the_setting() -> None:
    after = deployed(lab(1, 1, 1))
    ask = replace(
        wanted(after, item=made.deployment(THREE, image=made.archive(made.VLLM_IMAGE))),
        registry=None, registry_image=None, gateway_image=made.archive(made.GATEWAY_IMAGE),
    )  # fmt: skip
    done = plan(parse_site({"open_webui": {"enabled": False}}, "test"), ask, parse_current(after))
    former: Any = next(step.orders for step in done.steps if step.title == "Remove the former registry")
    assert set(former) == {"lab-1", "lab-2", "lab-3"}
    assert former["lab-3"]["projects"] == [{"name": PROJECT, "path": "/srv/onprem-llm/registry", "purge": True}]


def test_one_goes_with_the_last_replica_of_its_host() -> None:
    after = deployed(lab(1, 1, 1))
    done = planned(after, item=again(after, replicas=2), verb="scale")
    former: Any = next(step.orders for step in done.steps if step.title == "Remove the former registry")
    assert set(former) == {"lab-3"}
    assert ("lab-3", PROJECT, "remove") in shown(done)
    assert PROJECT not in made.applied(done, after)["lab-3"]["projects"]


@pytest.mark.parametrize("last", [True, False])
def test_down_takes_away_those_that_nobody_needs(last: bool) -> None:
    after = deployed(lab(2, 2, 2))
    if not last:
        other = model("replicas: 1\n", name="other", port=8100, resources=", hosts: [lab-3]")
        after = deployed(after, other)
    ask = replace(made.without(after, "tiny"), ui_image=None, registry=ALL, registry_image=made.archive(REGISTRY_IMAGE))
    done = plan(site(), ask, parse_current(after))
    orders: Any = next(step for step in done.steps if step.kind == "remove").orders
    gone = {host: one["purge"] for host, order in orders.items() for one in order["projects"] if one["name"] == PROJECT}
    assert gone == ({"lab-1": False, "lab-2": True, "lab-3": True} if last else {"lab-2": True})
    assert there(made.applied(done, after), "tiny") == {}


def test_purged_images_go_under_each_of_their_names() -> None:
    after = deployed(lab(1, 1, 1))
    ask = replace(made.without(after, "tiny", purge=True), ui_image=None, registry=ALL)
    done = plan(site(), ask, parse_current(after))
    orders: Any = next(step for step in done.steps if step.kind == "remove").orders
    assert all(made.image_id(made.VLLM_IMAGE) in orders[host]["images"] for host in ("lab-1", "lab-2", "lab-3"))
