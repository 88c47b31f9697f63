"""Deployments on a Ray cluster that somebody else runs: what is told it, by whom, and what it is refused for."""

import json
from typing import Any

import pytest
import recorded_facts as made
from recorded_ray import ADDRESS, BOUNDS, Hosts, cluster, elsewhere, model, site, site_elsewhere

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan
from onprem_llm.serve_state import told_digest
from onprem_llm.spec.site import Site
from onprem_llm.uninstalling import plan_removal


def planned(facts: Hosts, text: str, using: Site | None = None, **more: object) -> Plan:
    return made.planned(facts, made.deployment(text, image=None), using or site_elsewhere(), **more)


def deployed(facts: Hosts, text: str, using: Site | None = None) -> Hosts:
    return made.applied(planned(facts, text, using), facts)


def refused(facts: Hosts, text: str, using: Site | None = None) -> str:
    with pytest.raises(OnpremError) as caught:
        planned(facts, text, using)
    error = caught.value
    return "\n".join(part for part in (error.message, error.details, error.hint) if part)


def serve(facts: Hosts) -> dict[str, Any]:
    found: dict[str, Any] = facts["lab-1"]["serve"]
    return found


def test_weights_come_to_the_gateway_host_which_tells_serve_at_the_address() -> None:
    done = planned(elsewhere(), model(gpus=2))
    assert [(step.kind, step.hosts) for step in done.steps] == [
        ("stage", ("lab-1",)), ("ray_serve", ("lab-1",)), ("gateway", ("lab-1",)), ("record", ("lab-1",)),
    ]  # fmt: skip
    stage, told, *_ = done.steps
    tiny = made.weights("tiny").id
    assert [one["id"] for one in stage.orders["lab-1"]["weights"]] == [tiny]
    assert not any("vllm" in json.dumps(image) for image in stage.orders["lab-1"]["images"])
    order = told.orders["lab-1"]
    assert (order["address"], order["token"], order["names"], list(order["ours"])) == (ADDRESS, "", ["tiny"], ["tiny"])
    assert order["runs"] is True
    assert (order["readiness"]["url"], order["readiness"]["path"]) == (None, "/tiny/v1/chat/completions")
    (app,) = json.loads(done.files["lab-1"]["ray-serve"]["serve.json"])["applications"]
    (config,) = app["args"]["llm_configs"]
    assert config["model_loading_config"]["model_source"] == f"/mnt/weights/{tiny}"
    assert done.steps[-1].orders["lab-1"]["images"] == {}


def test_the_gateway_has_a_server_for_each_node_that_ray_names() -> None:
    done = planned(elsewhere(), model())
    text = done.files["lab-1"]["gateway"]["conf/deployments/tiny.cfg"]
    servers = [line.split()[1:3] for line in text.splitlines() if line.startswith("    server ")]
    assert servers == [["ray-10-9-0-1", "10.9.0.1:8000"], ["ray-10-9-0-2", "10.9.0.2:8000"]]


def test_a_second_time_changes_nothing_and_what_others_deploy_is_no_difference() -> None:
    facts = deployed(elsewhere(), model())
    assert set(serve(facts)["applications"]) == {"hello", "tiny"}
    serve(facts)["applications"]["more"] = {"status": "DEPLOYING", "message": "", "told": "x", "route": "/more"}
    assert planned(facts, model()).is_noop


def test_other_bounds_and_the_way_back_leave_theirs() -> None:
    facts = deployed(elsewhere(), model(BOUNDS.format(2)))
    done = planned(facts, model(BOUNDS.format(3)))
    (told,) = [step for step in done.steps if step.kind == "ray_serve"]
    ours = told.orders["lab-1"]["ours"]
    assert told.undo[0].orders["lab-1"]["ours"] == ours
    assert {name: len(digests) for name, digests in ours.items()} == {"tiny": 2}
    after = made.failed_at(done, facts, told.title)
    assert serve(after) == serve(facts)


def test_a_failed_first_deploy_takes_away_what_was_told_and_no_more() -> None:
    facts = elsewhere()
    done = planned(facts, model())
    (told,) = [step for step in done.steps if step.kind == "ray_serve"]
    (back,) = told.undo
    # The step itself may find that somebody has taken the name meanwhile. What was told from here the host knows.
    assert back.orders["lab-1"]["ours"] == {}
    assert set(serve(made.failed_at(done, facts, told.title))["applications"]) == {"hello"}


def test_down_takes_ours_alone() -> None:
    facts = deployed(elsewhere(), model())
    done = plan(site_elsewhere(), made.without(facts, "tiny"), made.current(facts))
    order = next(step for step in done.steps if step.kind == "ray_serve").orders["lab-1"]
    assert (order["names"], order["ours"]) == ([], {"tiny": [serve(facts)["applications"]["tiny"]["told"]]})
    assert set(serve(made.applied(done, facts))["applications"]) == {"hello"}


def test_the_token_goes_with_the_last_deployment_there() -> None:
    using = site_elsewhere(token_file="/home/ops/token")
    facts = deployed(deployed(elsewhere(), model(), using), model(name="other"), using)
    facts["lab-1"]["keys"]["ray_token"] = "f"

    def removed(name: str) -> list[str]:
        done = plan(using, made.without(facts, name), made.current(facts))
        assert done.secrets["ray-serve"] == {"token": {"from_file": "/home/ops/token"}}
        kinds = [step.kind for step in done.steps]
        orders = [step.orders["lab-1"].get("keys") for step in done.steps if step.kind == "remove"]
        assert not orders or kinds.index("ray_serve") < kinds.index("remove")
        return [key for keys in orders for key in keys or ()]

    assert removed("tiny") == []
    del facts["lab-1"]["book"]["deployments"]["other"]
    assert removed("tiny") == ["ray_token"]


def test_hosts_are_not_uninstalled_while_something_runs_there() -> None:
    facts = deployed(elsewhere(), model())
    with pytest.raises(InvalidError, match=f"found tiny on the Ray cluster at {ADDRESS}, which would stay there"):
        plan_removal(made.current(facts), site_elsewhere(), purge=False, purge_deployments=True)


def test_a_deploy_that_was_cut_off_is_ours_by_what_the_gateway_host_told() -> None:
    facts, done = elsewhere(), planned(elsewhere(), model())
    (app,) = json.loads(done.files["lab-1"]["ray-serve"]["serve.json"])["applications"]
    serve(facts)["applications"]["tiny"] = {"status": "DEPLOYING", "message": "", "told": told_digest(app)}
    planned(facts, model())  # nobody loses anything by what they have just so
    other = model(BOUNDS.format(3))
    assert "an application tiny" in refused(facts, other)
    serve(facts)["told"] = {"tiny": ["other", told_digest(app)]}
    planned(facts, other)
    gone = plan(site_elsewhere(), made.without(facts, "tiny"), made.current(facts))
    assert set(serve(made.applied(gone, facts))["applications"]) == {"hello"}


def test_the_token_goes_by_reference_and_comes_again_where_another_is_there() -> None:
    using = site_elsewhere(token_file="/home/ops/token")
    facts = elsewhere()
    serve(facts)["token_here"] = False
    done = planned(facts, model(), using)
    assert done.secrets["ray-serve"] == {"token": {"from_file": "/home/ops/token"}}
    assert next(step for step in done.steps if step.kind == "ray_serve").orders["lab-1"]["token"] == "ray_token"
    assert any("in clear" in warning and "token" in warning for warning in done.warnings)
    facts = deployed(facts, model(), using)
    assert planned(facts, model(), using).is_noop
    serve(facts)["token_here"] = False
    again = planned(facts, model(), using)
    assert [step.kind for step in again.steps] == ["ray_serve"]
    assert any(change.subject == "token of Ray" for change in again.changes)


def test_a_cluster_that_does_not_answer_keeps_the_nodes_that_gateways_know() -> None:
    facts = deployed(elsewhere(), model())
    facts["lab-1"]["serve"] = {"error": "it does not answer", "address": ADDRESS}
    assert "lab-1: it does not answer" in refused(facts, model())
    compose = made.deployment(made.MODEL.format(name="x", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000))
    facts["lab-2"] |= {key: made.host("lab-2", 2, gpus=1)[key] for key in ("gpus",)}
    done = made.planned(facts, compose, site_elsewhere())
    known = facts["lab-1"]["gateway"]["servers"]
    assert {name for name in known if name.startswith("tiny/")} == {"tiny/ray-10-9-0-1", "tiny/ray-10-9-0-2"}
    assert "server ray-10-9-0-2" in done.files["lab-1"]["gateway"]["conf/deployments/tiny.cfg"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"error": "http://10.9.0.1:8265 refuses the token (403)"}, "lab-1: http://10.9.0.1:8265 refuses the token"),
        ({"version": "2.49.1"}, "runs Ray 2.49.1, expected 2.60 or newer"),
        ({"version": None}, "runs Ray None, expected 2.60"),
        ({"port": 8100}, "serve_port: found 8000, and Ray Serve listens on 8100"),
        ({"host": "127.0.0.1"}, "listen on 127.0.0.1 alone"),
        ({"tls": True}, "speak TLS"),
        ({"proxy_location": "Disabled"}, "has no proxies (proxy_location: Disabled)"),
        ({"nodes": {}}, "no room for 1 replica of 1 GPU"),
    ],
)
def test_what_would_not_work_there(changes: dict[str, Any], said: str) -> None:
    facts = elsewhere()
    serve(facts).update(changes)
    found = refused(facts, model())
    assert said in found
    assert "onprem-llm cluster" not in found


@pytest.mark.parametrize("what", ["update", "the same", "another", "down"])
def test_a_name_of_the_book_that_somebody_has_taken(what: str) -> None:
    """Also with another cluster at the address, and with a book from a backup."""
    facts = deployed(deployed(elsewhere(), model()), model(name="other"))
    serve(facts)["applications"]["tiny"] = {"status": "RUNNING", "message": "", "told": "t", "route": "/tiny"}
    said = f"tiny: the Ray cluster at {ADDRESS} has an application tiny at /tiny that is not ours"
    if what == "down":
        with pytest.raises(InvalidError, match="that is not ours") as caught:
            plan(site_elsewhere(), made.without(facts, "tiny"), made.current(facts))
        assert said in caught.value.message
        assert "take address out of onprem_llm_site.ray, then onprem-llm down tiny" in (caught.value.hint or "")
        return
    texts = {"update": model(BOUNDS.format(3)), "the same": model(), "another": model(name="other")}
    assert said in refused(facts, texts[what])


def test_what_the_book_has_is_ours_though_this_gateway_host_never_told_it() -> None:
    facts = deployed(elsewhere(), model())
    serve(facts)["told"] = {}
    assert planned(facts, model()).is_noop
    done = planned(facts, model(BOUNDS.format(3)))
    assert set(serve(made.applied(done, facts))["applications"]) == {"hello", "tiny"}
    gone = plan(site_elsewhere(), made.without(facts, "tiny"), made.current(facts))
    assert set(serve(made.applied(gone, facts))["applications"]) == {"hello"}


@pytest.mark.parametrize("what", ["tiny", "other", "down"])
def test_another_address_while_the_book_has_deployments_at_the_former_one(what: str) -> None:
    facts = deployed(elsewhere(), model())
    del serve(facts)["applications"]["tiny"]
    serve(facts).update({"told": {}, "told_elsewhere": {"tiny": "http://10.8.0.1:8265"}})
    down = made.without(facts, "tiny")
    with pytest.raises(InvalidError, match=r"tiny went to the Ray cluster at http://10\.8\.0\.1:8265") as caught:
        plan(site_elsewhere(), down, made.current(facts)) if what == "down" else planned(facts, model(name=what))
    assert "set address to http://10.8.0.1:8265 and run onprem-llm down tiny first" in (caught.value.hint or "")
    # It is there again by now, or no book has it any more.
    serve(facts)["told"] = {"tiny": ["x"]}
    planned(facts, model())
    serve(facts)["told"] = {}
    del facts["lab-1"]["book"]["deployments"]["tiny"]
    planned(facts, model())


def test_without_an_address_down_says_what_stays_and_takes_the_token() -> None:
    facts = deployed(elsewhere(), model())
    facts["lab-1"]["serve"] = None
    facts["lab-1"]["keys"]["ray_token"] = "f"
    using = site(ray={})
    done = plan(using, made.without(facts, "tiny"), made.current(facts))
    assert any("no Ray cluster is told that tiny goes" in warning for warning in done.warnings)
    orders = [step.orders["lab-1"].get("keys") for step in done.steps if step.kind == "remove"]
    assert orders == [["ray_token"]]


def test_what_goes_though_no_book_has_it_is_in_the_plan() -> None:
    facts = deployed(elsewhere(), model())
    del facts["lab-1"]["book"]["deployments"]["tiny"]
    done = planned(facts, model(name="other"))
    said = {change.subject: change.action for change in done.changes if change.subject.endswith(" on Ray")}
    assert said == {"other on Ray": "create", "tiny on Ray": "remove"}


@pytest.mark.parametrize("taken", [("tiny", "/x"), ("x", "/tiny"), ("x", "/tiny/v1")])
def test_a_name_or_a_path_that_is_somebody_elses(taken: tuple[str, str]) -> None:
    facts = elsewhere()
    serve(facts)["applications"][taken[0]] = {"status": "RUNNING", "message": "", "told": "t", "route": taken[1]}
    assert f"an application {taken[0]} at {taken[1]} that is not ours" in refused(facts, model())


def test_room_is_what_ray_says_its_nodes_have() -> None:
    found = refused(elsewhere(gpus=2), model(gpus=4))
    assert "10.9.0.2: 2 GPUs, 2 left" in found
    assert "who runs the cluster" in found
    planned(elsewhere(cpus=4), model("replicas: 5\n", gpus=0))
    assert "no room for 6 replicas of 1 CPU" in refused(elsewhere(cpus=4), model("replicas: 6\n", gpus=0))


def test_a_cluster_of_our_own_beside_it() -> None:
    facts = elsewhere()
    facts["lab-2"]["groups"] = ["ray_worker"]
    assert "groups ray_head and ray_worker have lab-2; expected one of both" in refused(facts, model())
    assert "nodes of your own stand on" in refused({**elsewhere(), **_without_groups(cluster())}, model())


def _without_groups(facts: Hosts) -> Hosts:
    for state in facts.values():
        state["groups"] = []
    return facts


def test_a_gateway_host_that_was_not_asked() -> None:
    facts = elsewhere()
    facts["lab-1"]["serve"] = None
    assert f"the Ray cluster at {ADDRESS} was not asked" in refused(facts, model())


@pytest.mark.parametrize("status", ["DEPLOYING", "DEPLOY_FAILED", "RUNNING"])
def test_what_others_are_building_is_named(status: str) -> None:
    facts = elsewhere()
    serve(facts)["applications"]["theirs"] = {"status": status, "message": "", "told": "t", "route": "/theirs"}
    said = [text for text in planned(facts, model()).warnings if "has not built theirs" in text]
    assert len(said) == (status != "RUNNING")
    # Ours is.
    facts = deployed(elsewhere(), model())
    serve(facts)["applications"]["tiny"]["status"] = status
    assert not [text for text in planned(facts, model(BOUNDS.format(3))).warnings if "has not built" in text]
