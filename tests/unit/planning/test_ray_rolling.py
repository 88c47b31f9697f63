"""The nodes of a Ray cluster that stands are changed: one worker after another, or all together, which is said."""

from collections.abc import Sequence

import pytest
import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.errors import InvalidError
from onprem_llm.planning import hosts_change
from onprem_llm.planning.copies import with_copies
from onprem_llm.planning.host_checks import check_removable
from onprem_llm.planning.ray_cluster import PlannedUp, other_image, plan_image, plan_up
from onprem_llm.planning.ray_leaving import plan_down, plan_drain
from onprem_llm.planning.ray_rolling import Known
from onprem_llm.planning.types import ImageSource, Plan, Wanted

RAY, NEWER = "rayproject/ray-llm:2.60.0-py311-cu129", "rayproject/ray-llm:2.61.0-py311-cu129"
KEPT: dict[str, object] = {"head_store": "rocksdb"}
PATIENT = Known(timeout=400)
TINY, BROKEN = {"status": "RUNNING"}, {"status": "UNHEALTHY"}
SERVE = {"error": None, "port": 8100, "applications": {"tiny": TINY, "broken": BROKEN}}
Hosts = dict[str, Facts]


def cluster(workers: int = 2, **ray: object) -> Hosts:
    """Return a cluster that stands: lab-1 is head and gateway host, lab-2 and more are workers."""
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gateway=n == 1) for n in range(1, workers + 2)}
    for name, state in facts.items():
        state["groups"] = ["ray_head"] if name == "lab-1" else ["ray_worker"]
        state["interfaces"] = {state["addresses"][0]: "eth0"}
    facts = made.applied(up(facts, **{**KEPT, **ray}).plan, facts)
    facts["lab-1"]["serve"] = SERVE
    return facts


def up(
    facts: Hosts,
    known: Known | None = None,
    image: ImageSource | None = None,
    only: str | None = None,
    **ray: object,
) -> PlannedUp:
    current = made.current(facts)
    assert current.gateway is not None
    site = made.site(ray=ray or KEPT)
    return plan_up(site, current, current.gateway, image or made.archive(RAY), only, known)


def steps(plan: Plan) -> list[tuple[str, Sequence[str]]]:
    return [(step.kind, step.hosts) for step in plan.steps if step.kind not in {"stage", "ray_image"}]


def other_interface(facts: Hosts, *names: str) -> Hosts:
    """Change what workers alone are rendered from."""
    for name in names:
        facts[name]["interfaces"] = {facts[name]["addresses"][0]: "eth1"}
    return facts


ROLLED = [
    ("ray_drain", ("lab-2", "lab-1")),
    ("apply", ("lab-2",)),
    ("ray_nodes", ("lab-1",)),
    ("ray_drain", ("lab-3", "lab-1")),
    ("apply", ("lab-3",)),
    ("ray_nodes", ("lab-1",)),
]


def test_workers_change_one_after_another_and_each_is_emptied_first() -> None:
    facts = other_interface(cluster(), "lab-2", "lab-3")
    planned = up(facts, PATIENT)
    assert planned.ends is None
    assert steps(planned.plan) == ROLLED
    drain, start, wait, *_ = [step for step in planned.plan.steps if step.kind not in {"stage", "ray_image"}]
    assert drain.orders["lab-2"] == {"leaves": "ray-worker-ray-1"}
    assert (drain.orders["lab-1"]["nodes"], drain.orders["lab-1"]["timeout"]) == (["10.0.0.3"], 400)
    (back,) = drain.undo
    assert back.orders == {"lab-2": {"stays": "ray-worker-ray-1"}}
    (project,) = start.orders["lab-2"]["projects"]  # type: ignore[misc]
    assert project["name"] == "ray-worker"
    asked = wait.orders["lab-1"]
    assert (asked["nodes"], asked["applications"], asked["timeout"]) == (["10.0.0.3"], ["tiny"], 400)
    assert up(made.applied(planned.plan, facts)).plan.is_noop


def test_a_worker_is_drained_at_the_address_that_it_has_now() -> None:
    facts = cluster()
    facts["lab-2"]["addresses"], facts["lab-2"]["default_address"] = ["10.0.9.9"], "10.0.9.9"
    (drain, *_) = [step for step in up(facts).plan.steps if step.kind == "ray_drain"]
    assert drain.orders["lab-1"]["nodes"] == ["10.0.0.3"]


def test_new_workers_start_before_any_other_is_emptied() -> None:
    facts = other_interface(cluster(3), "lab-2")
    facts["lab-3"]["projects"].clear()
    facts["lab-4"]["projects"]["ray-worker"]["containers"][0].update(state="exited", health=None)
    kinds = steps(up(facts).plan)
    assert kinds == [("apply", ("lab-3", "lab-4")), ("ray_nodes", ("lab-1",)), *ROLLED[:3]]


def test_a_worker_that_hangs_is_not_waited_for() -> None:
    facts = cluster()
    facts["lab-2"]["projects"]["ray-worker"]["containers"][0].update(health="unhealthy")
    assert steps(up(facts).plan) == [("apply", ("lab-2",)), ("ray_nodes", ("lab-1",))]


def test_the_head_goes_first_and_what_served_is_waited_for() -> None:
    """The same Ray in another image: a head with a store of its own takes nothing along."""
    facts = cluster()
    planned = up(facts, Known(("2.60.0", "2.60.0")), made.archive(NEWER))
    assert planned.ends is None
    assert steps(planned.plan) == [("apply", ("lab-1",)), ("ray_nodes", ("lab-1",)), *ROLLED]
    (first, *_) = [step for step in planned.plan.steps if step.kind == "ray_nodes"]
    assert first.orders["lab-1"]["nodes"] == ["10.0.0.3", "10.0.0.4"]
    assert first.orders["lab-1"]["applications"] == ["tiny"]
    assert not planned.plan.warnings


def proxies(facts: Hosts, *names: str) -> Hosts:
    """Have the gateway know Ray Serve's proxies on some hosts."""
    up = {"port": 8100, "admin": "ready", "up": True, "check": "L7OK", "sessions": 0}
    servers = {f"tiny/ray-{name}": {**up, "address": facts[name]["addresses"][0]} for name in names}
    facts["lab-1"]["gateway"] = {"running": True, "error": None, "servers": servers}
    return facts


def test_a_head_that_starts_anew_gets_no_requests_meanwhile() -> None:
    """Its proxy of Serve's ends with it, in the middle of what it passes on."""
    facts = proxies(cluster(), "lab-1", "lab-2")
    plan = up(facts, Known(("2.60.0", "2.60.0")), made.archive(NEWER)).plan
    kinds = [("route", ("lab-1",)), ("apply", ("lab-1",)), ("ray_nodes", ("lab-1",)), ("route", ("lab-1",)), *ROLLED]
    assert steps(plan) == kinds
    out, back = [step.orders["lab-1"] for step in plan.steps if step.kind == "route"]
    assert (out["drain"], back["ready"]) == (["tiny/ray-lab-1"], ["tiny/ray-lab-1"])
    (undo,) = next(step.undo for step in plan.steps if step.kind == "route")
    assert undo.orders["lab-1"]["ready"] == ["tiny/ray-lab-1"]


def test_the_only_proxy_is_not_taken_away() -> None:
    plan = up(proxies(cluster(), "lab-1"), Known(("2.60.0", "2.60.0")), made.archive(NEWER)).plan
    assert "route" not in [step.kind for step in plan.steps]


def test_another_ray_stops_all_nodes_together_and_says_so() -> None:
    facts = cluster()
    planned = up(facts, Known(("2.60.0", "2.61.0")), made.archive(NEWER))
    assert planned.ends == "Ray 2.60.0 -> 2.61.0, and one cluster cannot have nodes of two Rays"
    assert steps(planned.plan) == [
        ("remove", ("lab-2", "lab-3")),
        ("remove", ("lab-1",)),
        ("apply", ("lab-1",)),
        ("apply", ("lab-2", "lab-3")),
        ("ray_nodes", ("lab-1",)),
    ]
    # What one Ray has stored is not for the other to read.
    stops = [step for step in planned.plan.steps if step.kind == "remove"]
    assert [stop.orders[stop.hosts[0]]["projects"][0]["purge"] for stop in stops] == [False, True]  # type: ignore[index]
    assert all(order["keys"] == [] for stop in stops for order in stop.orders.values())
    assert planned.plan.warnings == (
        f"{planned.ends}: all nodes stop together, and what they serve ends",
        "Ray forgets its applications",
        "broken, tiny on Ray: the book does not have it, and it is gone then",
    )
    # Nobody waits for what was forgotten.
    assert "applications" not in planned.plan.steps[-1].orders["lab-1"]
    assert up(made.applied(planned.plan, facts), image=made.archive(NEWER)).plan.is_noop


@pytest.mark.parametrize(
    ("ray", "why"),
    [
        ({"head_store": "memory"}, "has what it knows in memory"),
        ({**KEPT, "ports": {"first": 21000, "last": 21999}}, "Ray's ports change"),
    ],
    ids=["memory", "ports"],
)
def test_what_all_nodes_share_changes_on_all_together(ray: dict[str, object], why: str) -> None:
    facts = cluster()
    planned = up(facts, **ray)
    assert why in str(planned.ends)
    assert "ray_drain" not in [step.kind for step in planned.plan.steps]
    assert any("all nodes stop together" in line for line in planned.plan.warnings)


def test_another_token_is_for_all_together() -> None:
    facts = cluster()
    facts["lab-1"]["keys"]["ray_token"] = "0" * 64
    planned = up(facts)
    assert planned.ends == "the cluster's token changes"
    assert steps(planned.plan) == [("apply", ("lab-1",)), ("apply", ("lab-2", "lab-3")), ("ray_nodes", ("lab-1",))]
    assert not any("forgets" in line for line in planned.plan.warnings)


def test_a_head_that_does_not_run_serves_nobody() -> None:
    facts = other_interface(cluster(), "lab-2")
    facts["lab-1"]["projects"]["ray-head"]["containers"][0].update(state="exited", health=None)
    planned = up(facts)
    assert planned.ends is None
    assert steps(planned.plan) == [("apply", ("lab-1",)), ("apply", ("lab-2",)), ("ray_nodes", ("lab-1",))]


def test_who_carries_replicas_alone_is_not_drained_but_named() -> None:
    """They have nowhere to go, so that a drain would only wait."""
    planned = up(other_interface(cluster(1), "lab-2"))
    assert steps(planned.plan) == [("apply", ("lab-2",)), ("ray_nodes", ("lab-1",))]
    assert planned.plan.warnings == ("lab-2 alone carries replicas: what it serves ends until it is back",)


def test_another_image_is_brought_and_asked_before_its_change_is_planned() -> None:
    facts = cluster()
    current = made.current(facts)
    assert other_image(current, made.archive(RAY)) is None
    other = other_image(current, made.archive(NEWER))
    assert other is not None
    assert (other.standing, other.wanted, other.there) == (made.image_id(RAY), made.image_id(NEWER), False)
    assert current.gateway is not None
    plan = plan_image(made.site(ray=KEPT), current, current.gateway, made.archive(NEWER))
    assert [step.kind for step in plan.steps] == ["stage", "ray_image"]
    after = made.current(made.applied(plan, facts))
    other = other_image(after, made.archive(NEWER))
    assert other is not None
    assert other.there
    assert {name for host in after.hosts for name in host.projects} == {"ray-head", "ray-worker"}


def test_adding_one_worker_changes_no_other() -> None:
    facts = other_interface(cluster(3), "lab-2")
    facts["lab-4"]["projects"].clear()
    with pytest.raises(InvalidError, match="the nodes on lab-2 are not as the site's settings say") as raised:
        up(facts, only="lab-4")
    assert "cluster up" in str(raised.value.hint)


def test_a_drained_host_gets_no_node() -> None:
    facts = cluster()
    facts["lab-3"]["projects"].clear()
    facts["lab-1"]["book"]["hosts"] = {"lab-3": {"state": "drained"}}
    planned = up(facts)
    assert planned.plan.is_noop
    assert planned.plan.warnings == ("lab-3 is drained and gets no node: onprem-llm host undrain lab-3",)
    with pytest.raises(InvalidError, match="lab-3 is drained: nothing new goes there"):
        up(facts, only="lab-3")


def test_a_new_gateway_host_takes_the_token_of_the_cluster_that_stands() -> None:
    """The one before it is lost, and no copy was left: another token would stop all nodes."""
    facts = cluster(3)
    facts["lab-4"]["book"], facts["lab-1"]["book"] = facts["lab-1"]["book"], None
    facts["lab-4"]["projects"].clear()
    facts["lab-4"]["groups"], facts["lab-4"]["keys"] = [], {}
    planned = up(facts)
    assert planned.ends is None
    step, *_ = planned.plan.steps
    assert (step.kind, dict(step.orders)) == (
        "apply",
        {"lab-4": {"keys": ["ray_token"], "keys_host": "lab-1", "projects": []}},
    )
    assert [change.host for change in planned.plan.changes if change.subject == "token of Ray"] == ["lab-4"]
    assert not any(one.action in {"update", "restart"} and "ray-" in one.subject for one in planned.plan.changes)


def test_the_token_is_kept_on_both_gateway_hosts() -> None:
    facts = cluster()
    facts["lab-1"]["keys"].clear()
    for name in ("lab-1", "lab-2", "lab-3"):
        facts[name]["projects"].clear()
    facts["lab-2"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    plan = with_copies(up(facts).plan, made.current(facts))
    assert (plan.steps[-1].kind, plan.steps[-1].hosts) == ("book_copy", ("lab-2",))
    facts = made.applied(plan, facts)
    current = made.current(facts)
    assert current.gateway is not None
    site, gateway = made.site(ray=KEPT), current.gateway
    (gone,) = [step for step in plan_drain(site, current, gateway, "lab-2", 9).steps if step.kind == "remove"]
    assert gone.orders["lab-2"]["keys"] == []
    facts["lab-3"]["book"], facts["lab-3"]["projects"] = {"gateway": False, "second": True, "deployments": {}}, {}
    orders = [step.orders for step in plan_down(site, made.current(facts), gateway).steps]
    keys = {host: order["keys"] for one in orders for host, order in one.items()}
    assert keys == {"lab-1": ["ray_token"], "lab-2": ["ray_token"], "lab-3": ["ray_token"]}


def away(facts: Hosts, name: str, *, back: bool = False) -> Plan:
    current = made.current(facts)
    assert current.gateway is not None
    make = hosts_change.plan_undrain if back else hosts_change.plan_drain
    return make(made.site(ray=KEPT), Wanted(()), current, current.gateway, name)


def test_a_host_with_a_worker_is_neither_drained_nor_removed_without_ray() -> None:
    facts = cluster()
    for refused in (lambda: away(facts, "lab-2"), lambda: check_removable(made.current(facts), "lab-2", lost=False)):
        with pytest.raises(InvalidError, match="lab-2 has a worker of the Ray cluster") as raised:
            refused()
        assert "onprem-llm cluster drain lab-2, then run this again" in str(raised.value.hint)
    facts["lab-2"]["projects"].clear()
    plan = away(facts, "lab-2")
    check_removable(made.current(facts), "lab-2", lost=False)
    facts = made.applied(plan, facts)
    (warning,) = away(facts, "lab-2", back=True).warnings
    assert warning == "lab-2 is to be a worker of the Ray cluster: onprem-llm cluster add lab-2"


def test_a_head_is_not_removed_and_goes_on_while_its_host_is_drained() -> None:
    facts = cluster()
    facts["lab-3"]["book"], facts["lab-1"]["book"] = facts["lab-1"]["book"], None
    with pytest.raises(InvalidError, match="lab-1 has the head of the Ray cluster") as raised:
        check_removable(made.current(facts), "lab-1", lost=False)
    assert "cluster down" in str(raised.value.hint)
    (warning,) = away(facts, "lab-1").warnings
    assert "lab-1 has the head of the Ray cluster, which goes on" in warning
