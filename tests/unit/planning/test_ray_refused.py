"""What a deployment on Ray is refused for, before anything starts: each with what was found and what to do."""

from collections.abc import Callable

import pytest
import recorded_facts as made
from planning_lab import model as compose_model
from recorded_ray import RAY, Hosts, cluster, deployed, document, model, planned, site

from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.spec.site import Site


def refused(facts: Hosts, text: str, using: Site | None = None, **more: object) -> str:
    with pytest.raises(OnpremError) as raised:
        planned(facts, text, using, **more)
    assert isinstance(raised.value, InvalidError | UnreachableError)
    assert raised.value.hint
    return " | ".join(filter(None, (raised.value.message, raised.value.details, raised.value.hint)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (model().replace("tensor_parallel_size: 1", "tensor_parallel_size: auto").replace("resources: {gpus: 1}\n", ""),
         "tensor_parallel_size: found auto"),
        (model().replace("{gpus: 1}", "{gpus: 2, nodes: 2}").replace("size: 1", "size: 2"), "resources.nodes: found 2"),
        (model().replace("{gpus: 1}", "{gpus: 1, hosts: [lab-2]}"), "resources.hosts: found lab-2"),
        (model().replace("{gpus: 1}", "{gpus: 1, gpu_models: [H100]}"), "resources.gpu_models: found H100"),
        (model("routing: prefix_cache\n"), "routing: found prefix_cache"),
        (model("routing: session\n"), "routing: found session"),
        (model("task: rerank\n"), "task: found rerank"),
        (model().replace("{gpus: 1}", "{gpus: 4}"), "resources.gpus: found 4, expected 1"),
        (model("env: {HF_TOKEN: {from_env: HF_TOKEN}}\n"), "HF_TOKEN with from_env"),
    ],
)  # fmt: skip
def test_what_ray_cannot_do(text: str, said: str) -> None:
    found = refused(cluster(), text)
    assert said in found
    assert "backend: compose" in found


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = refused(cluster(), model("routing: session\ntask: rerank\n"))
    assert "routing: found session" in found
    assert "task: found rerank" in found


def test_no_cluster() -> None:
    assert "no Ray cluster stands" in refused(made.lab(), model())
    assert "cluster up" in refused(made.lab(), model())


def test_the_head_may_be_on_a_host_that_is_silent() -> None:
    facts = cluster()
    facts["lab-2"]["book"], facts["lab-1"]["book"] = facts["lab-1"]["book"], None
    found = refused(facts, model(), unreachable=["lab-1"])
    assert "no host that answered has the head" in found
    assert "lab-1" in found


def _stopped(facts: Hosts, host: str, project: str) -> Hosts:
    facts[host]["projects"][project]["containers"][0]["state"] = "exited"
    return facts


def test_a_head_that_does_not_run() -> None:
    assert "head of the Ray cluster on lab-1 does not run" in refused(_stopped(cluster(), "lab-1", "ray-head"), model())


def test_no_worker_that_runs() -> None:
    facts = _stopped(_stopped(cluster(), "lab-2", "ray-worker"), "lab-3", "ray-worker")
    assert "no worker of the Ray cluster answers: lab-2, lab-3" in refused(facts, model())


def test_one_worker_that_does_not_run_is_warned_of_and_gets_no_weights() -> None:
    done = planned(_stopped(cluster(), "lab-3", "ray-worker"), model())
    assert any("lab-3: its Ray node does not run" in warning for warning in done.warnings)
    stage = next(step for step in done.steps if step.kind == "stage")
    assert "lab-3" not in stage.orders


def test_an_image_that_is_not_the_clusters() -> None:
    found = refused(cluster(), model().replace(RAY, "rayproject/ray-llm:2.60.0"))
    assert "engine.image: found rayproject/ray-llm:2.60.0" in found
    assert f"expected {RAY}" in found
    assert "onprem_llm_site.ray.image" in found


def test_nodes_that_run_another_image_than_the_site_names_now() -> None:
    facts = cluster()
    for image in facts["lab-2"]["images"]:
        image["id"] = "sha256:" + "1" * 64
    found = refused(facts, model())
    assert "lab-2: its Ray node runs" in found
    assert "cluster up" in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (model(gpus=4), "no room for 1 replica of 4 GPUs each"),
        (model("replicas: 5\n"), "no room for 5 replicas of 1 GPU each"),
        (model("replicas: {min: 5, max: 6}\n"), "no room for 5 replicas of 1 GPU each"),
        (model("replicas: 7\n", gpus=0), "no room for 7 replicas of 1 CPU each"),
    ],
)
def test_no_room_for_the_fewest_says_what_each_host_has(text: str, said: str) -> None:
    facts = cluster(gpus=2, cpus=4) if "4 GPUs" not in said else cluster(gpus=1, cpus=4)
    found = refused(facts, text)
    assert said in found
    assert "lab-2: " in found
    assert "lab-3: " in found
    assert "cluster add" in found


def test_room_is_what_the_others_fewest_leave() -> None:
    facts = deployed(cluster(), model("replicas: 3\n", name="other"))
    assert "lab-2: 2 GPUs, 0 left" in refused(facts, model("replicas: 2\n"))
    planned(facts, model("replicas: 1\n"))


def test_a_replica_larger_than_a_host_goes_over_several() -> None:
    planned(cluster(), model(gpus=4))
    assert "no room for 2 replicas" in refused(cluster(), model("replicas: 2\n", gpus=4))


def test_a_port_that_serve_began_with_stays() -> None:
    facts = cluster()
    facts["lab-1"]["serve"] |= {"port": 8100, "proxies": {"10.0.0.2": "HEALTHY"}}
    found = refused(facts, model(), site(ray={"image": RAY, "serve_port": 8200}))
    assert "serve_port: found 8200, and Ray Serve listens on 8100" in found


def test_nodes_without_rules() -> None:
    facts = cluster()
    facts["lab-3"]["ray_firewall"]["active"] = False
    found = refused(facts, model())
    assert "lab-3: the rules that guard Ray's ports are not in force" in found
    assert "cluster up" in found


def test_tls_to_the_engines_is_not_promised() -> None:
    found = refused(cluster(), model(), site(gateway={"engine_tls": "on"}))
    assert "engine_tls is on" in found
    assert any("in clear" in warning for warning in planned(cluster(), model()).warnings)
    off = planned(cluster(), model(), site(gateway={"engine_tls": "off"}))
    assert not any("in clear" in warning for warning in off.warnings)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(model, compose_model, "found compose, and the book has it with ray"),
     (lambda: compose_model(resources=", hosts: [lab-4]"), model, "found ray, and the book has it with compose")],
)  # fmt: skip
def test_another_backend_under_the_same_name(before: Callable[[], str], after: Callable[[], str], said: str) -> None:
    facts = cluster()
    facts["lab-4"] = made.host("lab-4", 4, gpus=2)
    # Its firewall is of a gateway that does not change.
    found = refused(deployed(facts, before()), after())
    assert said in found
    assert "onprem-llm down tiny" in found


@pytest.mark.parametrize(
    ("extra", "said"),
    [("port: 9000\n", "port: 9000 has no effect"), ("listen: all\n", "listen: all has no effect"),
     ("gpu_access: cdi\n", "gpu_access: cdi has no effect")],
)  # fmt: skip
def test_what_has_no_effect_is_warned_of(extra: str, said: str) -> None:
    assert any(said in warning for warning in planned(cluster(), model(extra)).warnings)
    assert not any("no effect" in warning for warning in planned(cluster(), model()).warnings)


def test_a_head_that_forgets_is_warned_of() -> None:
    assert any("forgets its applications" in warning for warning in planned(cluster(), model()).warnings)


@pytest.mark.parametrize(("out", "said"), [(["lab-1"], "head"), (["lab-2", "lab-3"], "workers")])
def test_a_limit_that_leaves_the_cluster_out(out: list[str], said: str) -> None:
    facts = cluster()
    facts["lab-4"] = made.host("lab-4", 4, gateway=True)
    facts["lab-1"]["book"] = None
    found = refused(facts, model(), left_out=out)
    assert f"--limit leaves out the Ray cluster's {said}" in found


def test_an_update_without_room_for_one_more_is_warned_of() -> None:
    facts = deployed(cluster(1, gpus=1), model())
    update = model().replace("8192", "1024")
    assert any("there may be a gap" in warning for warning in planned(facts, update).warnings)
    for light in ("replicas: {min: 1, max: 2}\n", "timeouts: {start: 77}\n", "readiness: {path: /v1/models}\n"):
        assert not any("gap" in warning for warning in planned(facts, model(light)).warnings)
    roomy = deployed(cluster(), model())
    assert not any("gap" in warning for warning in planned(roomy, update).warnings)
    assert any("must ask for other" in warning for warning in planned(roomy, model("served_name: other\n")).warnings)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("max_surge: 1", "update.max_surge of tiny is 1, and the Ray cluster has no room"),
        ("max_unavailable: 0", "update.max_unavailable of tiny is 0, and the Ray cluster has no room"),
    ],
)
def test_an_update_whose_new_replica_would_wait_for_ever_is_refused(rule: str, said: str) -> None:
    changed = model(f"update: {{{rule}}}\n").replace("8192", "1024")
    told = refused(deployed(cluster(1, gpus=1), model()), changed)
    assert said in told
    # Also who goes back to a revision, which is as it is, can do what it says.
    assert "deploy that (`onprem-llm history tiny --json` has each revision's); or " in told
    assert planned(deployed(cluster(), model()), changed).steps, "there is room for one more"
    assert planned(cluster(1, gpus=1), changed).steps, "nothing stands that is replaced"
    forgot = deployed(cluster(1, gpus=1), model())
    forgot["lab-1"]["serve"]["applications"] = {}
    assert planned(forgot, changed).steps, "nothing stands any more"


def test_a_gap_says_whether_the_room_or_the_rule_makes_it() -> None:
    update = model().replace("8192", "1024")
    narrow, roomy = deployed(cluster(1, gpus=1), model()), deployed(cluster(), model())
    assert any("there may be a gap: the Ray cluster has no room" in said for said in planned(narrow, update).warnings)
    for facts in (narrow, roomy):
        said = planned(facts, update + "update: {max_surge: 0}\n").warnings
        assert any("there may be a gap: update.max_surge is 0, so the old replica" in one for one in said)


def test_none_may_be_missing_has_a_new_replica_start_first() -> None:
    """Also where there was no room for one when it was told: a later change is refused, and takes none away."""
    told = document(planned(cluster(1, gpus=1), model("update: {max_unavailable: 0}\n")))["tiny"]["deployments"][0]
    assert told["max_surge_percent"] > 0
