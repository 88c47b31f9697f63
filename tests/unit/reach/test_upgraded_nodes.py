"""A host with a worker of the Ray cluster gets another driver: it leaves the cluster before, and joins afterwards."""

from typing import Any

import pytest
import recorded_facts as made
from upgraded_world import NEW, OLD, World, prepared, taken

from onprem_llm import upgraded_nodes
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.planning.driver_serving import PURPOSE
from onprem_llm.planning.driver_upgrade import Seen, plan_upgrade
from onprem_llm.planning.ray_cluster import PlannedUp, plan_up
from onprem_llm.planning.types import Plan
from onprem_llm.run_events import HostFailure
from onprem_llm.upgrade_view import upgrade_text

RAY = "rayproject/ray-llm:2.60.0-py311-cu129"


def up(world: World, only: str | None = None) -> Plan:
    current = made.current(world.facts)
    assert current.gateway is not None
    return plan_up(made.site(), current, current.gateway, made.archive(RAY), only).plan


@pytest.fixture
def node(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a fleet in which lab-4 has the cluster's head, and lab-3, which has nothing else, a worker."""
    world.facts["lab-4"] = made.host("lab-4", 4)
    world.facts["lab-4"]["groups"], world.facts["lab-3"]["groups"] = ["ray_head"], ["gpu", "ray_worker"]
    world.facts = made.applied(up(world), world.facts)

    def carry(plan: Plan, *_: Any, **__: Any) -> None:
        world.happened += [step.title for step in plan.steps if step.kind != "stage"]
        failing = world.rotations.get("leave")
        if failing:
            failing.pop(0)()
        world.facts = made.applied(plan, world.facts)

    monkeypatch.setattr(upgraded_nodes, "look_whole", world.look)
    monkeypatch.setattr(upgraded_nodes, "carry", carry)
    monkeypatch.setattr(upgraded_nodes, "apply", carry)
    monkeypatch.setattr(upgraded_nodes, "load_site", lambda *_: made.site())
    monkeypatch.setattr(upgraded_nodes, "up_plan", lambda *_, only: PlannedUp(up(world, only)))
    return world


def test_it_leaves_before_its_turn_and_joins_after_it(node: World) -> None:
    ready = prepared(node)
    (turn,) = [one for one in ready.plan.hosts if one.host == "lab-3"]
    assert turn.worker
    assert "leaves the Ray cluster meanwhile" in upgrade_text(ready.plan)
    assert taken(node).states["lab-3"] == "upgraded"
    order = [one for one in node.happened if "lab-3" in one or "workers" in one]
    assert order == [
        "drain lab-3",
        "Drain lab-3",
        "Take lab-3 out of the Ray cluster",
        "upgrade lab-3",
        "let in lab-3",
        "Start the workers of the Ray cluster",
        "Wait for the workers",
        f"lab-3: {OLD} -> {NEW}",
    ]
    assert "ray-worker" in node.facts["lab-3"]["projects"]


def test_a_worker_that_cannot_be_emptied_keeps_its_driver(node: World) -> None:
    def stays() -> None:
        raise OnpremError("replicas that found no place elsewhere: tiny on 10.0.0.4")

    node.rotations["leave"] = [stays]
    outcome = taken(node)
    assert "upgrade lab-3" not in node.happened
    assert "replicas that found no place elsewhere" in str(outcome.error)
    assert "ray-worker" in node.facts["lab-3"]["projects"]


def test_a_worker_that_could_not_join_again_does_not_leave(node: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings, or a newer onprem-llm, want other nodes: `cluster add` changes none beside."""
    monkeypatch.setattr(made, "archive", lambda ref, archive=made.archive: archive("rayproject/ray-llm:other"))
    outcome = taken(node)
    assert "and would be changed, too" in str(outcome.error)
    assert outcome.drained == []
    assert not {"drain lab-3", "Drain lab-3", "upgrade lab-3"} & set(node.happened)
    assert "ray-worker" in node.facts["lab-3"]["projects"]


def test_the_next_run_brings_back_what_a_failed_one_has_taken_out(node: World) -> None:
    node.answers["lab-3"] = [HostFailure("lab-3", "Fail", "no", unreachable=False)]
    assert taken(node).states["lab-3"] == "failed"
    assert "ray-worker" not in node.facts["lab-3"]["projects"]
    node.drained("lab-3", purpose=PURPOSE)
    node.answers.clear()
    node.happened.clear()

    def let_in() -> None:
        node.facts["lab-1"]["book"]["hosts"] = {}

    node.rotations["let in lab-3"] = [let_in]
    taken(node)
    assert "ray-worker" in node.facts["lab-3"]["projects"]


def test_a_head_with_replicas_on_its_gpus_is_refused(world: World) -> None:
    world.facts["lab-3"]["groups"] = ["ray_head", "ray_worker", "gpu"]
    world.facts = made.applied(up(world), world.facts)
    with pytest.raises(InvalidError) as raised:
        plan_upgrade("580", [Seen("lab-3", 1, OLD, OLD, NEW)], made.current(world.facts))
    assert "lab-3: it has the head of the Ray cluster" in str(raised.value.details)
    assert "cluster down" in str(raised.value.details)
