"""cluster down: nothing is taken down while Ray Serve has applications, or while nobody says that it has none."""

from pathlib import Path
from typing import Any

import pytest
import recorded_facts as made

from onprem_llm import clusters
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.look import View
from onprem_llm.output import PlainProgress
from onprem_llm.planning.ray_cluster import plan_up

RAY = "rayproject/ray-llm:2.60.0-py311-cu129"


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gateway=n == 1) for n in (1, 2)}
    facts["lab-1"]["groups"], facts["lab-2"]["groups"] = ["ray_head"], ["ray_worker"]
    current = made.current(facts)
    assert current.gateway is not None
    facts = made.applied(plan_up(made.site(), current, current.gateway, made.archive(RAY)).plan, facts)
    monkeypatch.setattr(clusters, "look_whole", lambda *_: seen(facts))
    monkeypatch.setattr(clusters, "load_site", lambda *_: made.site())
    return facts


def seen(facts: dict[str, Any]) -> View:
    there = {name: state for name, state in facts.items() if state is not None}
    return View(made.current(there, tuple(name for name in facts if name not in there)), (), "")


def down(*, applications_too: bool = False) -> bool:
    return clusters.down_plan(
        Connection(Path("inventory.ini")), PlainProgress(), applications_too=applications_too
    ).is_noop


def says(monkeypatch: pytest.MonkeyPatch, ray: clusters.RayView) -> None:
    monkeypatch.setattr(clusters, "ask_ray", lambda *_: ray)


@pytest.mark.parametrize(
    "ray",
    [clusters.RayView(applications={"tiny": {}}), clusters.RayView(error="lab-1: Ray's dashboard does not answer")],
    ids=["applications", "no answer"],
)
def test_it_is_refused(standing: dict[str, Any], monkeypatch: pytest.MonkeyPatch, ray: clusters.RayView) -> None:
    says(monkeypatch, ray)
    with pytest.raises(InvalidError, match="may have applications") as raised:
        down()
    assert raised.value.details == ray.error
    assert "--applications" in str(raised.value.hint)
    assert not down(applications_too=True)


def test_workers_whose_head_is_silent_are_no_empty_cluster(standing: dict[str, Any]) -> None:
    standing["lab-2"]["book"], standing["lab-1"] = standing["lab-1"]["book"], None
    with pytest.raises(InvalidError, match="Ray does not answer"):
        down()


def test_an_empty_cluster_goes(standing: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    says(monkeypatch, clusters.RayView(applications={}))
    assert not down()


def test_workers_without_any_head_serve_nothing(standing: dict[str, Any]) -> None:
    standing["lab-1"]["projects"].clear()
    assert not down()


def test_where_none_stands_nobody_is_asked(standing: dict[str, Any]) -> None:
    for host in standing.values():
        host["projects"].clear()
    down()
