"""Ray Serve's configuration: what must not replace a replica stands outside of what Serve hashes."""

import json
from dataclasses import dataclass, replace

import pytest

from onprem_llm.rendering.ray_serve import (
    RayApplication,
    application,
    engine_kwargs,
    ray_problems,
    serve_config,
    server_name,
)
from onprem_llm.spec.deployment import Deployment, parse_deployment

BASE = """\
api_version: 1
name: {name}
model: ./models/{name}
engine:
  image: rayproject/ray-llm:2.56.0-py312-cu130
  engine_args: {args}
resources: {{gpus: {gpus}}}
"""


@dataclass(frozen=True)
class Bounds:
    min: int = 1
    max: int = 4
    target_ongoing_requests: float = 2.0
    upscale_delay: float = 30.0
    downscale_delay: float = 600.0


def deployment(name: str = "tiny", args: str = "{}", gpus: int = 0, more: str = "") -> Deployment:
    return parse_deployment(BASE.format(name=name, args=args, gpus=gpus) + more, "model.yaml")


def ray(made: Deployment, replicas: object = 1, gpus_per_host: int = 0, **more: object) -> RayApplication:
    return RayApplication(made, replicas, f"/weights/{made.name}", gpus_per_host, **more)  # type: ignore[arg-type]


def hashed(one: RayApplication) -> str:
    """What Serve's code version is made of (ray 2.60: get_app_code_version)."""
    found = application(one)
    return json.dumps([found["import_path"], found.get("runtime_env"), found["args"]], sort_keys=True)


def server(one: RayApplication) -> dict:
    found = application(one)["deployments"]
    assert isinstance(found, list)
    return found[0]


@pytest.mark.parametrize("replicas", [3, Bounds(2), Bounds(1, 8), Bounds(1, 4, 9), Bounds(downscale_delay=1)])
def test_scaling_is_not_in_what_serve_hashes(replicas: object) -> None:
    one = ray(deployment())
    other = replace(one, replicas=replicas)
    assert application(one) != application(other)
    assert hashed(one) == hashed(other)


def test_the_number_of_ingresses_is_not_in_what_serve_hashes() -> None:
    one, two = ray(deployment()), ray(deployment(), ingresses=2)
    assert application(one) != application(two)
    assert hashed(one) == hashed(two)


def test_how_replicas_are_replaced_is_not_in_what_serve_hashes() -> None:
    before, after = deployment(), deployment(more="update: {max_surge: 0, drain_timeout: 9}\n")
    assert application(ray(before)) != application(ray(after))
    assert hashed(ray(before)) == hashed(ray(after))


@pytest.mark.parametrize(
    "other",
    [deployment(args="{max_model_len: 9}"), deployment(more="env: {A: b}\n"), deployment(more="served_name: b\n")],
)
def test_what_the_engine_is_started_with_is_in_what_serve_hashes(other: Deployment) -> None:
    assert hashed(ray(deployment())) != hashed(ray(other))


def test_other_weights_are_in_what_serve_hashes() -> None:
    one = ray(deployment())
    assert hashed(one) != hashed(replace(one, weights_path="/weights/other"))


def test_overrides_name_the_parts_as_serve_llm_names_them() -> None:
    # A name that Serve does not find fails the application.
    assert server_name("Qwen/Qwen2.5-7B") == "LLMServer:Qwen--Qwen2_5-7B"
    one = ray(deployment(more="served_name: org/m-1.5\n"))
    assert server(one)["name"] == "LLMServer:org--m-1_5"


def test_bounds_and_delays_reach_serve_under_its_names() -> None:
    assert server(ray(deployment(), Bounds(2, 8, 4.5, 10, 60)))["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 8,
        "target_ongoing_requests": 4.5,
        "upscale_delay_s": 10,
        "downscale_delay_s": 60,
    }


def test_a_fixed_number_is_bounds_that_are_one() -> None:
    found = server(ray(deployment(), 3))["autoscaling_config"]
    assert (found["min_replicas"], found["max_replicas"]) == (3, 3)


@pytest.mark.parametrize(
    ("update", "replicas", "spare", "surge", "at_once"),
    [
        ("", 1, True, 100, 1.0),
        ("", 1, False, 0, 1.0),
        ("update: {max_surge: 1}\n", 4, False, 25, 0.25),
        ("update: {max_surge: 2, max_unavailable: 0}\n", 4, False, 50, 0.25),
        ("update: {max_surge: 0, max_unavailable: 2}\n", 4, True, 0, 0.5),
        ("update: {max_surge: 9}\n", 2, True, 100, 0.5),
        ("update: {max_surge: 1}\n", 64, True, 1, 1 / 64),
    ],
)
def test_update_reaches_serve(update: str, replicas: int, spare: bool, surge: int, at_once: float) -> None:
    found = server(ray(deployment(more=update), replicas, spare=spare))
    assert found["max_surge_percent"] == surge
    assert found["rolling_update_percentage"] == pytest.approx(at_once)


def test_streams_may_go_on_as_long_as_the_model_says() -> None:
    found = application(ray(deployment(more="update: {drain_timeout: 120}\n")))["deployments"]
    assert isinstance(found, list)
    assert [part["graceful_shutdown_timeout_s"] for part in found] == [120.0, 120.0]


@pytest.mark.parametrize(("gpus_per_host", "strategy"), [(8, "STRICT_PACK"), (4, "STRICT_PACK"), (2, "PACK")])
def test_an_engine_straddles_hosts_only_where_none_holds_it(gpus_per_host: int, strategy: str) -> None:
    one = ray(deployment(args="{tensor_parallel_size: 2, pipeline-parallel-size: 2}", gpus=4), 1, gpus_per_host)
    config = application(one)["args"]["llm_configs"][0]  # type: ignore[index]
    assert config["placement_group_config"] == {"bundle_per_worker": {"GPU": 1}, "strategy": strategy}
    assert config["accelerator_config"] == {"kind": "gpu"}


def test_engine_args_are_vllms_field_names() -> None:
    args = '{max-model-len: 9, quantization: null, "--x_y.b": 1, "x_y.c": true}'
    made = deployment(args=args, more="trust_remote_code: true\n")
    assert engine_kwargs(made) == {"max_model_len": 9, "trust_remote_code": True, "x_y": {"b": 1, "c": True}}


def test_the_order_of_the_book_changes_nothing() -> None:
    one, two = ray(deployment("apple")), ray(deployment("zebra"))
    found = serve_config([two, one], port=8100)
    assert found == serve_config([one, two], port=8100)
    applications = found["applications"]
    assert isinstance(applications, list)
    assert [each["route_prefix"] for each in applications] == ["/apple", "/zebra"]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (deployment(more="env: {TOKEN: {from_env: TOKEN}}\n"), "env: found TOKEN with from_env"),
        (deployment(args="{tensor_parallel_size: 2}", gpus=4), "resources.gpus: found 4, expected 2"),
        (deployment(args="{data-parallel-size: 2}", gpus=2), "engine.engine_args.data-parallel-size: found 2"),
    ],
)
def test_what_ray_cannot_do_is_said_with_path_and_remedy(made: Deployment, says: str) -> None:
    (problem,) = ray_problems(made)
    assert problem.startswith(says)
    assert "backend: ray" in problem


def test_a_plain_deployment_has_no_problem() -> None:
    assert ray_problems(deployment(args="{tensor_parallel_size: 2}", gpus=2)) == []
    assert ray_problems(deployment()) == []
