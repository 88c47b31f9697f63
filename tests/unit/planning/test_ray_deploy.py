"""Deployments on Ray: what Serve is told, in which order, when nothing is to be done, and the way back."""

import json
from dataclasses import replace

import own_registry
import recorded_facts as made
from planning_lab import model as compose_model
from recorded_ray import BOUNDS, RAY, Hosts, cluster, deployed, document, model, planned, site

from onprem_llm.planning.plan import plan
from onprem_llm.planning.ray_again import tell_again
from onprem_llm.planning.ray_cluster import plan_up
from onprem_llm.planning.ray_hosts import ray_hosts
from onprem_llm.planning.types import Plan
from onprem_llm.serve_state import told_digest


def titles(done: Plan) -> list[tuple[str, tuple[str, ...]]]:
    return [(step.kind, step.hosts) for step in done.steps]


def down(facts: Hosts, name: str, **changes: object) -> Plan:
    return plan(site(), made.without(facts, name, **changes), made.current(facts))


def test_weights_come_to_the_workers_then_serve_is_told_then_the_gateway_then_the_book() -> None:
    done = planned(cluster(), model())
    assert titles(done) == [
        ("stage", ("lab-2", "lab-3", "lab-1")),
        ("ray_serve", ("lab-1",)),
        ("gateway", ("lab-1",)),
        ("record", ("lab-1",)),
    ]
    stage, serve, *_ = done.steps
    weights = {host: [one["id"] for one in order["weights"]] for host, order in stage.orders.items()}
    tiny = made.weights("tiny").id
    assert weights == {"lab-1": [], "lab-2": [tiny], "lab-3": [tiny]}
    (config,) = document(done)["tiny"]["args"]["llm_configs"]
    assert config["model_loading_config"]["model_source"] == f"/weights/{tiny}"
    order = serve.orders["lab-1"]
    assert (order["names"], order["token"], order["source"]) == (["tiny"], "ray_token", "ray-serve")
    assert order["readiness"]["url"] == "http://127.0.0.1:8100"
    assert order["readiness"]["path"] == "/tiny/v1/chat/completions"
    assert order["readiness"]["key"] is None
    assert done.steps[-1].orders["lab-1"]["placement"] == {}


def test_a_second_time_changes_nothing() -> None:
    facts = deployed(cluster(), model())
    again = planned(facts, model())
    assert again.is_noop
    assert {change.action for change in again.changes} == {"keep"}
    assert again.revision == 1


def test_the_gateway_has_a_server_for_each_node_and_neither_key_nor_revision_for_ray() -> None:
    done = planned(cluster(), model())
    text = done.files["lab-1"]["gateway"]["conf/deployments/tiny.cfg"]
    servers = [line.split()[1:3] for line in text.splitlines() if line.startswith("    server ")]
    assert servers == [[f"ray-10-0-0-{n}", f"10.0.0.{n}:8100"] for n in (2, 3, 4)]
    assert "replace-path (.*) /tiny\\1" in text
    assert "del-header Authorization" in text
    gateway = next(step for step in done.steps if step.kind == "gateway")
    assert gateway.orders["lab-1"]["engine_keys"] == {}
    assert gateway.orders["lab-1"]["keys"] == []


def test_other_bounds_are_told_in_deployments_alone_so_that_no_replica_is_replaced() -> None:
    facts = deployed(cluster(), model(BOUNDS.format(2)))
    done = planned(facts, model(BOUNDS.format(3)))
    before, after = document(done, "ray-serve.before")["tiny"], document(done)["tiny"]
    assert before["args"] == after["args"]
    assert after["deployments"][0]["autoscaling_config"]["max_replicas"] == 3
    assert titles(done) == [("pending", ("lab-1",)), ("ray_serve", ("lab-1",)), ("record", ("lab-1",))]
    (change,) = [change for change in done.changes if change.subject == "tiny on Ray"]
    assert (change.action, change.reasons) == ("update", ("replicas.max: 2 -> 3",))


def test_scale_fixes_the_number() -> None:
    facts = deployed(cluster(), model(BOUNDS.format(2)))
    done = made.planned(facts, made.again(facts, "tiny", replicas=3), site(), verb="scale")
    told = document(done)["tiny"]["deployments"][0]["autoscaling_config"]
    assert (told["min_replicas"], told["max_replicas"]) == (3, 3)
    assert document(done)["tiny"]["args"] == document(done, "ray-serve.before")["tiny"]["args"]


def test_the_document_has_all_deployments_of_the_book() -> None:
    facts = deployed(deployed(cluster(), model()), model(name="other"))
    done = planned(facts, model(name="third"))
    assert sorted(document(done)) == ["other", "third", "tiny"]
    assert sorted(document(done, "ray-serve.before")) == ["other", "tiny"]
    assert planned(facts, model()).is_noop
    assert planned(facts, model(name="other")).is_noop


def test_a_failed_update_tells_serve_what_it_was_told_before_and_the_book_of_no_new_revision() -> None:
    facts = deployed(cluster(), model())
    done = planned(facts, model().replace("8192", "1024"))
    after = made.failed_at(done, facts, "Tell Ray Serve of tiny")
    assert after["lab-1"]["serve"] == {**facts["lab-1"]["serve"]}
    assert after["lab-1"]["book"]["deployments"]["tiny"]["revision"] == 1
    assert planned(after, model()).is_noop
    assert planned(after, model().replace("8192", "1024")).revision == 3


def test_a_failed_first_deploy_leaves_nothing_on_ray() -> None:
    facts = deployed(cluster(), model(name="other"))
    after = made.failed_at(planned(facts, model()), facts, "Start tiny on Ray")
    assert list(after["lab-1"]["serve"]["applications"]) == ["other"]
    assert planned(after, model()).revision == 1


def test_what_was_cut_off_is_gone_on_with() -> None:
    facts = deployed(cluster(), model())
    update = model().replace("8192", "1024")
    after = made.cut_off(planned(facts, update), facts, "Tell Ray Serve of tiny")
    (change,) = [c for c in planned(after, model()).changes if c.subject == "tiny on Ray"]
    assert change.action == "update", "the book's revision is told again where a change to another was cut off"
    done = planned(after, update)
    assert not done.is_noop
    assert made.applied(done, after)["lab-1"]["book"]["deployments"]["tiny"]["revision"] == done.revision
    assert planned(made.applied(done, after), update).is_noop


def test_a_head_that_forgot_is_told_all_again_by_the_deploy_of_anything_on_ray() -> None:
    facts = deployed(deployed(cluster(), model()), model(name="other"))
    facts["lab-1"]["serve"]["applications"] = {}
    done = planned(facts, model())
    assert sorted(document(done)) == ["other", "tiny"]
    told = {change.subject: change.action for change in done.changes if change.subject.endswith("on Ray")}
    assert told == {"tiny on Ray": "create", "other on Ray": "create"}
    assert done.steps[0].orders["lab-1"]["names"] == ["tiny"], "another that does not start does not fail this one"
    assert planned(made.applied(done, facts), model()).is_noop


def test_one_that_ray_is_still_bringing_up_is_waited_for() -> None:
    facts = deployed(cluster(), model())
    facts["lab-1"]["serve"]["applications"]["tiny"]["status"] = "DEPLOYING"
    done = planned(facts, model())
    assert titles(done) == [("ray_serve", ("lab-1",))]
    assert [c.action for c in done.changes if c.subject == "tiny on Ray"] == ["wait"]


def test_ray_that_says_nothing_is_asked_by_the_step() -> None:
    facts = deployed(cluster(), model())
    facts["lab-1"]["serve"] = {"error": "timed out"}
    done = planned(facts, model())
    assert titles(done) == [("ray_serve", ("lab-1",))]
    (change,) = [change for change in done.changes if change.subject == "tiny on Ray"]
    assert "timed out" in change.reasons[0]


def test_down_leaves_the_gateway_first_then_serve_then_the_book() -> None:
    facts = deployed(deployed(cluster(), model()), model(name="other"))
    done = down(facts, "tiny")
    assert [kind for kind, _ in titles(done)] == ["route", "gateway", "ray_serve", "record"]
    assert done.steps[0].orders["lab-1"]["drain"] == [f"tiny/ray-10-0-0-{n}" for n in (2, 3, 4)]
    assert list(document(done)) == ["other"]
    assert "conf/deployments/tiny.cfg" not in done.files["lab-1"]["gateway"]
    assert done.steps[2].orders["lab-1"]["names"] == [], "no other one is waited for"
    after = made.applied(done, facts)
    assert list(after["lab-1"]["serve"]["applications"]) == ["other"]
    assert planned(after, model(name="other")).is_noop


def test_down_of_the_last_one_takes_the_gateway_along_and_leaves_an_empty_document() -> None:
    facts = deployed(cluster(), model())
    done = down(facts, "tiny", purge=True)
    assert document(done) == {}
    assert [kind for kind, _ in titles(done)] == ["route", "ray_serve", "remove", "record"]
    removed = next(step for step in done.steps if step.kind == "remove").orders
    assert all(order["images"] == [] for order in removed.values()), "the cluster's nodes run from it"
    assert [order["weights"] for host, order in removed.items() if host != "lab-1"] != []


def test_down_where_the_cluster_is_gone_tells_nobody() -> None:
    facts = deployed(cluster(), model())
    for state in facts.values():
        state["projects"] = {name: one for name, one in state["projects"].items() if not name.startswith("ray-")}
        state["serve"] = None
    assert "ray_serve" not in [kind for kind, _ in titles(down(facts, "tiny"))]


def test_one_on_hosts_beside_it_each_change_renders_the_gateway_with_both() -> None:
    facts = cluster(gpus=0)
    facts["lab-4"] = made.host("lab-4", 4, gpus=2)
    facts = deployed(facts, model(gpus=0))
    both = planned(facts, compose_model(name="plain", resources=", hosts: [lab-4]"))
    files = both.files["lab-1"]["gateway"]
    assert {"conf/deployments/tiny.cfg", "conf/deployments/plain.cfg"} <= set(files)
    assert "ray_serve" not in [kind for kind, _ in titles(both)]
    gateway = next(step for step in both.steps if step.kind == "gateway" and step.title == "Tell the gateway")
    assert gateway.orders["lab-1"]["engine_keys"] == {"ONPREM_LLM_KEY_PLAIN": "plain"}
    after = made.applied(both, facts)
    assert planned(after, model(gpus=0)).is_noop
    update = planned(after, model(gpus=0).replace("8192", "1024"))
    assert "conf/deployments/plain.cfg" in update.files["lab-1"]["gateway"]
    assert [kind for kind, _ in titles(update)] == ["pending", "ray_serve", "record"]


def test_a_node_that_does_not_answer_stays_a_server_of_the_gateway() -> None:
    facts = deployed(cluster(), model())
    done = planned(facts, model(), unreachable=["lab-3"])
    text = done.files["lab-1"]["gateway"]["conf/deployments/tiny.cfg"]
    assert "server ray-10-0-0-4 10.0.0.4:8100" in text
    assert any("lab-3" in warning and "did not answer" in warning for warning in done.warnings)


def test_a_cluster_whose_head_forgot_is_told_all_of_the_book_and_waits_for_nobody() -> None:
    facts = deployed(deployed(cluster(), model()), model(name="other"))
    current = made.current(facts)
    told = tell_again(site(), current, ray_hosts(current))
    assert told is not None
    step, files = told
    text = files["ray-serve"]["serve.json"]
    assert {one["name"]: told_digest(one) for one in json.loads(text)["applications"]} == {
        name: app["told"] for name, app in facts["lab-1"]["serve"]["applications"].items()
    }
    assert step.orders["lab-1"]["names"] == []
    assert tell_again(site(), made.current(cluster()), ray_hosts(current)) is None


def test_a_gateway_that_came_later_is_let_in_by_the_nodes() -> None:
    facts = deployed(cluster(), model())
    facts["lab-2"]["book"] = {"gateway": False, "second": True, "deployments": {}}
    done = planned(facts, model())
    (step,) = [step for step in done.steps if step.title == "Let the gateways reach Ray Serve"]
    assert step.hosts == ("lab-1", "lab-2", "lab-3")
    rules = {rule["ports"]: rule["sources"] for rule in step.orders["lab-3"]["ray_firewall"]["rules"]}
    assert rules["8100"] == ["10.0.0.2", "10.0.0.3"]
    assert rules["20000-20999"] == facts["lab-3"]["ray_firewall"]["rules"]["20000-20999"]
    assert "ray_serve" not in [kind for kind, _ in titles(done)]
    assert planned(made.applied(done, facts), model()).is_noop


def test_a_move_has_no_weights_and_brings_none() -> None:
    facts = deployed(cluster(), model(BOUNDS.format(3)))
    facts["lab-3"]["weights"] = {}
    assert made.planned(facts, made.again(facts, "tiny"), site(), verb="move").is_noop


def test_bounds_in_a_numbers_place_are_said_in_one_line() -> None:
    facts = deployed(cluster(), model())
    (change,) = [c for c in planned(facts, model(BOUNDS.format(2))).changes if c.subject == "tiny on Ray"]
    assert change.reasons == ("replicas: 1 -> 1 to 2",)


def test_an_image_that_the_sites_own_registry_has_goes_along_no_chain_for_ray() -> None:
    facts = cluster(3)
    content = own_registry.store(RAY, made.GATEWAY_IMAGE, size=3 * made.GIB)
    image = own_registry.pulled(RAY)
    base = made.wanted(facts, made.deployment(model(), image=image))
    wanted = replace(base, ui_image=None, registry=content, registry_image=made.archive(own_registry.REGISTRY_IMAGE))
    done = plan(site(registry_dir="registry"), wanted, made.current(facts))
    assert "fan_out" not in [kind for kind, _ in titles(done)]
    assert "ray_serve" in [kind for kind, _ in titles(done)]


def test_a_cluster_that_forgets_is_told_again() -> None:
    facts = deployed(cluster(), model())
    facts["lab-1"]["groups"].append("ray_worker")
    facts["lab-1"]["serve"] = {"error": None, "port": 8100, "applications": {"tiny": {}, "by-hand": {}}}
    current = made.current(facts)
    assert current.gateway is not None
    done = plan_up(site(), current, current.gateway, made.archive(RAY)).plan
    assert [step.kind for step in done.steps][-2:] == ["ray_nodes", "ray_serve"]
    assert set(document(done)) == {"tiny"}
    assert set(done.files["lab-1"]) == {"ray-head", "ray-serve"}
    assert done.warnings[1:] == (
        "Ray forgets its applications: it is told of tiny again at the end, which start then",
        "by-hand on Ray: the book does not have it, and it is gone then",
    )


def test_a_new_worker_without_weights_is_named() -> None:
    facts = deployed(cluster(), model())
    facts["lab-3"]["projects"].clear()
    facts["lab-3"]["weights"] = {}
    current = made.current(facts)
    assert current.gateway is not None
    done = plan_up(site(), current, current.gateway, made.archive(RAY)).plan
    assert "ray_serve" not in [step.kind for step in done.steps]
    assert any("lab-3: the weights of tiny are not there" in line for line in done.warnings)
    assert "lab-3: the gateways send requests there once tiny is deployed again" in done.warnings


def test_another_image_is_not_what_revisions_ran_with() -> None:
    current = made.current(deployed(cluster(), model()))
    assert current.gateway is not None
    done = plan_up(site(), current, current.gateway, made.archive("onprem-llm/vllm-ray:next")).plan
    (line,) = (line for line in done.warnings if "engine.image" in line)
    assert line.startswith(f"tiny was deployed with engine.image: {RAY} and will run with onprem-llm/vllm-ray:next:")
    assert not plan_up(site(), current, current.gateway, made.archive(RAY)).plan.warnings


def _unlike() -> Hosts:
    """Return a cluster with workers of 2, 2 and 1 GPUs."""
    facts = cluster(3)
    small = facts["lab-4"]["projects"]["ray-worker"]["containers"][0]["labels"]
    small["onprem-llm.gpus"] = small["onprem-llm.gpus"].partition(",")[0]
    return facts


def test_a_host_that_is_away_replaces_no_replica_of_another_deployment() -> None:
    facts = deployed(deployed(_unlike(), model(gpus=2)), model(name="other"))
    update = model(name="other").replace("8192", "1024")
    told = document(planned(facts, update), "ray-serve.before")["tiny"]["args"]
    assert told["llm_configs"][0]["placement_group_config"]["strategy"] == "STRICT_PACK"
    assert document(planned(facts, update, unreachable=["lab-4"]))["tiny"]["args"] == told
    facts["lab-4"]["projects"]["ray-worker"]["containers"][0]["state"] = "exited"
    assert document(planned(facts, update))["tiny"]["args"] == told


def test_down_while_no_worker_runs_leaves_the_others_as_they_were_told() -> None:
    facts = deployed(deployed(cluster(), model(gpus=2)), model(name="other"))
    told = document(down(facts, "other"))["tiny"]
    for name in ("lab-2", "lab-3"):
        facts[name]["projects"]["ray-worker"]["containers"][0]["state"] = "exited"
    after = document(down(facts, "other"))["tiny"]
    assert after == told


def test_a_lost_worker_is_no_reason_to_change_anything_nor_to_refuse_what_serves() -> None:
    facts = deployed(cluster(gpus=1), model("replicas: 2\n"))
    assert planned(facts, model("replicas: 2\n"), unreachable=["lab-3"]).is_noop
    moved = made.again(facts, "tiny")
    assert made.planned(facts, moved, site(), verb="move", unreachable=["lab-3"]).is_noop
    other = site(ray={"image": "rayproject/ray-llm:2.60.0"})
    assert made.planned(facts, moved, other, verb="move").is_noop, "what serves is not judged by later settings"


def test_an_update_has_time_for_as_many_turns_as_it_needs() -> None:
    text = "replicas: 4\ntimeouts: {start: 100}\nupdate: {drain_timeout: 10}\n"
    facts = deployed(cluster(gpus=2), model(text))
    update = model(text).replace("8192", "1024")
    (step,) = [step for step in planned(facts, update).steps if step.kind == "ray_serve"]
    assert step.orders["lab-1"]["timeout"] == 4 * 110, "there is room for the four alone: one after another"
    first = next(step for step in planned(cluster(), model(text)).steps if step.kind == "ray_serve")
    assert first.orders["lab-1"]["timeout"] == 100
