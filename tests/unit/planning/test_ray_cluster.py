"""The Ray cluster: who is in it, what is started in which order, who reaches whom, and what is refused."""

from dataclasses import replace

import pytest
import recorded_facts as made
import yaml
from recorded_facts import Facts

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.planning.ray_cluster import plan_up
from onprem_llm.planning.ray_leaving import plan_down, plan_drain
from onprem_llm.planning.types import ImageSource, Plan
from onprem_llm.spec.site import Site

RAY = "rayproject/ray-llm:2.60.0-py311-cu129"
IMAGE = made.archive(RAY)
Hosts = dict[str, Facts]


def hosts(workers: int = 2, *, gpus: int = 0, head_works: bool = False) -> Hosts:
    """Return lab-1, the head and the gateway host, and workers behind it."""
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=gpus, gateway=n == 1) for n in range(1, workers + 2)}
    for name, state in facts.items():
        state["groups"] = ["ray_head"] if name == "lab-1" else ["ray_worker"]
        state["interfaces"] = {state["addresses"][0]: "eth0"}
    if head_works:
        facts["lab-1"]["groups"].append("ray_worker")
    return facts


def up(facts: Hosts, only: str | None = None, *, site: Site | None = None, silent: tuple[str, ...] = ()) -> Plan:
    current = made.current({name: state for name, state in facts.items() if name not in silent}, silent)
    assert current.gateway is not None
    return plan_up(site or made.site(), current, current.gateway, IMAGE, only).plan


def running(facts: Hosts) -> Hosts:
    return made.applied(up(facts), facts)


def compose(plan: Plan, host: str) -> dict[str, object]:
    ((project, files),) = plan.files[host].items()
    value = yaml.safe_load(files["compose.yaml"])
    assert value["name"] == project
    body: dict[str, object] = value["services"]["ray"]
    return body


def titles(plan: Plan) -> list[tuple[str, tuple[str, ...]]]:
    return [(step.kind, step.hosts) for step in plan.steps]


def refused(facts: Hosts, **more: object) -> str:
    with pytest.raises(InvalidError) as raised:
        up(facts, **more)  # type: ignore[arg-type]
    assert raised.value.hint
    return f"{raised.value.message} | {raised.value.hint}"


def test_images_are_asked_then_the_head_starts_then_the_workers_and_ray_is_asked_for_them() -> None:
    plan = up(hosts())
    assert titles(plan) == [
        ("stage", ("lab-1", "lab-2", "lab-3")),
        ("ray_image", ("lab-1", "lab-2", "lab-3")),
        ("apply", ("lab-1",)),
        ("apply", ("lab-2", "lab-3")),
        ("ray_nodes", ("lab-1",)),
    ]
    assert plan.steps[1].orders["lab-3"] == {"image": made.image_id(RAY), "like": "lab-1"}
    assert plan.steps[-1].orders["lab-1"]["nodes"] == ["10.0.0.3", "10.0.0.4"]


def test_a_second_time_changes_nothing() -> None:
    facts = running(hosts(gpus=2))
    assert up(facts).is_noop
    assert {change.action for change in up(facts).changes} == {"keep"}


def test_what_ray_listens_on_while_it_works_is_no_change_of_the_hosts() -> None:
    facts = running(hosts())
    before = up(facts).based_on
    facts["lab-2"]["listeners"] += [
        {"address": made.EVERYWHERE, "port": port, "pid": 9, "process": "raylet", "container": None}
        for port in (20001, 20500, 8100)  # the last one is Ray Serve's: its proxies come and go with replicas
    ]
    assert up(facts).based_on == before
    facts["lab-2"]["listeners"] += [
        {"address": made.EVERYWHERE, "port": 21000, "pid": 9, "process": "nginx", "container": None}
    ]
    assert up(facts).based_on != before


def test_the_token_is_made_on_the_gateway_host_and_in_no_argv() -> None:
    plan = up(hosts())
    order = plan.steps[2].orders["lab-1"]
    assert (order["keys"], order["keys_host"]) == (["ray_token"], "lab-1")
    (project,) = order["projects"]  # type: ignore[misc]
    entries = [{"name": "RAY_AUTH_TOKEN", "keys": ["ray_token"], "separator": ";"}]
    assert project["secrets"]["entries"] == entries
    for host in ("lab-1", "lab-2"):
        body = compose(plan, host)
        assert body["secrets"] == ["env"]
        assert body["environment"]["RAY_AUTH_MODE"] == "token"  # type: ignore[index]
        assert "RAY_AUTH_TOKEN" not in yaml.safe_dump(body)


def test_another_token_starts_the_nodes_anew() -> None:
    facts = running(hosts())
    facts["lab-1"]["keys"]["ray_token"] = "0" * 64
    actions = {change.host: change.action for change in up(facts).changes}
    assert actions == {"lab-1": "restart", "lab-2": "restart", "lab-3": "restart"}


def test_only_the_cluster_reaches_ray_and_only_the_gateways_ray_serve() -> None:
    facts = hosts()
    facts["lab-3"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    order = up(facts).steps[3].orders["lab-2"]
    assert order["ray_firewall"] == {
        "rules": [
            {"ports": "20000-20999", "sources": ["10.0.0.2", "10.0.0.3", "10.0.0.4"]},
            {"ports": "8100", "sources": ["10.0.0.2", "10.0.0.4"]},
        ]
    }


def test_rules_that_are_not_in_force_are_put_right_and_nothing_is_restarted() -> None:
    facts = running(hosts())
    facts["lab-2"]["ray_firewall"]["active"] = False
    (step,) = up(facts).steps
    assert (step.kind, step.hosts) == ("apply", ("lab-2",))
    assert step.orders["lab-2"]["projects"] == []


def test_who_is_silent_stays_let_in() -> None:
    facts = running(hosts(3))
    assert up(facts, silent=("lab-4",)).is_noop


def test_a_worker_more_is_let_in_by_the_others_before_it_starts() -> None:
    facts = running(hosts(2))
    new = made.host("lab-4", 4)
    new["groups"], new["interfaces"] = ["ray_worker"], {new["addresses"][0]: "eth0"}
    facts["lab-4"] = new
    plan = up(facts, "lab-4")
    kinds = titles(plan)
    assert kinds[2:] == [
        ("apply", ("lab-1", "lab-2", "lab-3")),
        ("apply", ("lab-4",)),
        ("ray_nodes", ("lab-1",)),
    ]
    assert all(plan.steps[2].orders[name]["projects"] == [] for name in ("lab-1", "lab-2", "lab-3"))
    assert kinds[1] == ("ray_image", ("lab-1", "lab-4"))
    assert made.applied(plan, facts)["lab-2"]["ray_firewall"]["rules"]["20000-20999"][-1] == new["addresses"][0]


def test_adding_one_worker_starts_no_other() -> None:
    assert set(up(hosts(3), "lab-3").files) == {"lab-1", "lab-3"}


def test_the_head_carries_replicas_where_it_is_a_worker_too() -> None:
    alone = compose(up(hosts(gpus=2)), "lab-1")
    assert "--num-gpus=0" in alone["command"]  # type: ignore[operator]
    assert "deploy" not in alone
    both = compose(up(hosts(gpus=2, head_works=True)), "lab-1")
    assert "--num-gpus=0" not in both["command"]  # type: ignore[operator]
    assert "deploy" in both


def test_a_head_that_starts_anew_is_a_warning() -> None:
    facts = running(hosts())
    facts["lab-1"]["groups"].append("ray_worker")
    assert any("Ray forgets its applications" in text for text in up(facts).warnings)
    assert titles(up(facts))[-1] == ("ray_nodes", ("lab-1",))


def test_what_the_head_knows_outlives_it_where_that_is_asked_for() -> None:
    kept = made.site(ray={"head_store": "rocksdb"})
    facts = hosts()
    plan = up(facts, site=kept)
    head, worker = compose(plan, "lab-1"), compose(plan, "lab-2")
    assert head["environment"]["RAY_gcs_storage"] == "rocksdb"  # type: ignore[index]
    assert "./store:/store" in head["volumes"]  # type: ignore[operator]
    for node in (head, worker):
        assert node["environment"]["RAY_gcs_rpc_server_reconnect_timeout_s"] == "86400"  # type: ignore[index]
    assert "reconnect" not in yaml.safe_dump([compose(up(facts), host) for host in ("lab-1", "lab-2")])
    assert "store" not in yaml.safe_dump(worker).replace("object-store-memory", "")
    assert "store" not in yaml.safe_dump(compose(up(facts), "lab-1")["volumes"])
    facts = made.applied(plan, facts)
    facts["lab-1"]["groups"].append("ray_worker")
    assert not any("forgets" in text or "all nodes" in text for text in up(facts, site=kept).warnings)
    # From memory nothing can be kept.
    assert any("Ray forgets" in text for text in up(running(hosts()), site=kept).warnings)


def test_a_container_that_ended_is_started_again() -> None:
    facts = running(hosts())
    facts["lab-2"]["projects"]["ray-worker"]["containers"][0].update(state="exited", health=None, exit_code=1)
    plan = up(facts)
    assert titles(plan) == [("apply", ("lab-2",)), ("ray_nodes", ("lab-1",))]
    # A drain that was killed before the node went has left it without its restart policy, which `up` alone keeps so.
    (project,) = next(step for step in plan.steps if step.kind == "apply").orders["lab-2"]["projects"]  # type: ignore[misc]
    assert project["recreate"]


@pytest.mark.parametrize("heads", [(), ("lab-1", "lab-2")])
def test_there_is_exactly_one_head(heads: tuple[str, ...]) -> None:
    facts = hosts()
    for name, state in facts.items():
        state["groups"] = ["ray_head"] if name in heads else ["ray_worker"]
    text = refused(facts)
    assert f"the inventory's group ray_head has {', '.join(heads) or 'none'}, expected exactly one host" in text


def test_a_head_does_not_move_by_itself() -> None:
    """Two would stand, on one host beside a worker on the same ports."""
    facts = running(hosts())
    facts["lab-1"]["groups"], facts["lab-2"]["groups"] = ["ray_worker"], ["ray_head"]
    assert "the cluster's head is on lab-1, and the inventory's group ray_head has lab-2" in refused(facts)
    facts["lab-1"]["projects"].clear()
    assert "lab-2 is a worker of the cluster" in refused(facts)


def test_a_head_that_may_be_silent_is_waited_for() -> None:
    facts = hosts()
    facts["lab-1"]["groups"] = []
    with pytest.raises(UnreachableError, match="lab-9"):
        up(facts | {"lab-9": made.host("lab-9", 9)}, silent=("lab-9",))


def test_somebody_has_to_carry_replicas() -> None:
    assert "ray_worker has no host" in refused(hosts(0))


def test_a_host_outside_of_the_group_cannot_be_added() -> None:
    facts = hosts()
    facts["lab-3"]["groups"] = []
    assert "lab-3 is not in the inventory's group ray_worker" in refused(facts, only="lab-3")


@pytest.mark.parametrize(("port", "setting"), [(20007, "ray.ports"), (8100, "ray.serve_port")])
def test_a_port_of_somebody_elses_is_found_before_anything_starts(port: int, setting: str) -> None:
    facts = hosts()
    facts["lab-2"]["listeners"].append(
        {"address": made.EVERYWHERE, "port": port, "pid": 9, "process": "nginx", "container": None}
    )
    text = refused(facts)
    assert f"port {port} is in use on lab-2: nginx" in text
    assert f"onprem_llm_site.{setting}" in text


def test_gpus_that_replicas_have_are_not_rays() -> None:
    facts = hosts(gpus=2)
    model = made.deployment(made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000))
    facts = made.applied(made.planned(facts, model), facts)
    (where,) = [name for name, state in facts.items() if "tiny-0" in state["projects"]]
    facts["lab-1"]["groups"].append("ray_worker")
    assert f"{where}: GPU 0 is tiny-0's, and Ray takes all GPUs of a host" in refused(facts)


def test_replicas_go_to_no_gpu_of_rays() -> None:
    facts = running(hosts(1, gpus=2, head_works=True))
    model = made.deployment(made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000))
    with pytest.raises(InvalidError) as raised:
        made.planned(facts, model)
    assert "GPU 0 is ray-worker's" in f"{raised.value.message} {raised.value.details}"


def test_an_image_that_nothing_brings_is_refused_with_its_host() -> None:
    current = made.current(hosts())
    assert current.gateway is not None
    with pytest.raises(InvalidError, match="is not on lab-1, and nothing can bring it"):
        plan_up(made.site(), current, current.gateway, ImageSource(RAY))


def drained(facts: Hosts, name: str) -> Plan:
    current = made.current(facts)
    assert current.gateway is not None
    return plan_drain(made.site(), current, current.gateway, name, 900)


def test_a_worker_leaves_once_ray_has_drained_it() -> None:
    facts = running(hosts())
    plan = drained(facts, "lab-2")
    assert titles(plan) == [("ray_drain", ("lab-2", "lab-1")), ("remove", ("lab-2",))]
    assert plan.steps[0].orders["lab-2"] == {"leaves": "ray-worker-ray-1"}
    assert plan.steps[0].orders["lab-1"]["nodes"] == ["10.0.0.3"]
    (back,) = plan.steps[0].undo
    assert (back.kind, back.orders) == ("ray_drain", {"lab-2": {"stays": "ray-worker-ray-1"}})
    after = made.applied(plan, facts)
    assert after["lab-2"]["projects"] == {}
    assert after["lab-2"]["ray_firewall"] is None
    assert "ray_token" not in after["lab-2"]["keys"]
    assert drained(after, "lab-2").is_noop
    assert titles(up(after, "lab-2"))[-1] == ("ray_nodes", ("lab-1",))


def test_the_gateway_host_keeps_the_token_when_it_leaves() -> None:
    facts = hosts()
    facts["lab-1"]["groups"], facts["lab-2"]["groups"] = ["ray_worker"], ["ray_head"]
    facts = running(facts)
    after = made.applied(drained(facts, "lab-1"), facts)
    assert "ray_token" in after["lab-1"]["keys"]


def test_the_head_cannot_be_drained() -> None:
    with pytest.raises(InvalidError, match="lab-1 has the cluster's head"):
        drained(running(hosts()), "lab-1")


def test_a_worker_whose_head_is_gone_leaves_without_being_drained() -> None:
    facts = running(hosts())
    facts["lab-1"]["projects"].clear()
    plan = drained(facts, "lab-2")
    assert titles(plan) == [("remove", ("lab-2",))]
    assert "elsewhere" not in str(plan.changes)


def test_nobody_is_drained_while_the_head_is_silent() -> None:
    """Its replicas would end with it, and no other had been started."""
    facts = running(hosts())
    facts["lab-3"]["book"], facts["lab-1"]["book"] = facts["lab-1"]["book"], None
    current = made.current({name: facts[name] for name in ("lab-2", "lab-3")}, ("lab-1",))
    assert current.gateway is not None
    with pytest.raises(UnreachableError, match="these did not: lab-1"):
        plan_drain(made.site(), current, current.gateway, "lab-2", 900)


def test_down_takes_workers_then_the_head_and_the_token() -> None:
    facts = running(hosts())
    current = made.current(facts)
    assert current.gateway is not None
    plan = plan_down(made.site(), current, current.gateway)
    assert titles(plan) == [("remove", ("lab-2", "lab-3")), ("remove", ("lab-1",))]
    after = made.applied(plan, facts)
    assert not any(state["projects"] or state["keys"] or state.get("ray_firewall") for state in after.values())
    again = made.current(after)
    assert again.gateway is not None
    assert plan_down(made.site(), again, again.gateway).is_noop


def test_plans_name_nodes_that_the_inventory_does_not_have_any_more() -> None:
    facts = running(hosts())
    facts["lab-3"]["groups"] = []
    assert any("lab-3 runs ray-worker" in text and "cluster drain lab-3" in text for text in up(facts).warnings)


def test_a_plan_of_the_cluster_says_nothing_of_revisions() -> None:
    plan = replace(up(hosts()), steps=())
    assert (plan.verb, plan.revision, plan.model_yaml) == ("cluster", 0, "")


def test_nodes_may_read_their_token_whoever_the_image_runs_as() -> None:
    plan = up(hosts())
    assert [compose(plan, host)["user"] for host in ("lab-1", "lab-2")] == ["0:0", "0:0"]
