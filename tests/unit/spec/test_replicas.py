"""`backend` and `replicas` of model.yaml."""

from pathlib import Path

import pytest

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.output import glimpse
from onprem_llm.planned import plan_deploy
from onprem_llm.planning.revisions import canonical_text, differences
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.replicas import Autoscaling

SMALLEST = "api_version: 1\nname: tiny\nmodel: ./m\nengine: {image: 'vllm/vllm-openai:v0.11.0'}\n"
RAY = SMALLEST + "backend: ray\n"


def problems(text: str) -> str:
    with pytest.raises(InvalidError) as raised:
        parse_deployment(text, "model.yaml")
    return f"{raised.value.message}\n{raised.value.details}"


def test_a_number_is_for_both_backends() -> None:
    assert parse_deployment(SMALLEST + "replicas: 3\n", "m").replica_count == 3
    assert parse_deployment(RAY + "replicas: 3\n", "m").replica_count == 3
    assert parse_deployment(SMALLEST, "m").replicas == 1


def test_bounds_have_rays_own_defaults() -> None:
    deployment = parse_deployment(RAY + "replicas: {min: 1, max: 4}\n", "m")
    assert deployment.replicas == Autoscaling(min=1, max=4)
    assert deployment.replicas == Autoscaling(
        min=1, max=4, target_ongoing_requests=2, upscale_delay=30, downscale_delay=600
    )
    assert deployment.replica_count == 1


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        ("{min: 2, max: 1}", "replicas (line 6): found min: 2 and max: 1, expected min to be max at most"),
        ("{min: 0, max: 1}", "replicas.min (line 6): found 0, expected greater than or equal to 1"),
        ("{min: 1}", "replicas.max (line 6): is missing: add it"),
        ("{min: 1, max: 2, target_qps: 3}", "replicas.target_qps (line 6): unknown key"),
        ("{min: 1, max: 2, upscale_delays: 3}", "did you mean upscale_delay?"),
        ("{min: 1, max: 2, target_ongoing_requests: 0}", "replicas.target_ongoing_requests (line 6): found 0"),
        ("many", "replicas (line 6): found the text 'many', expected a whole number"),
        ("65", "replicas (line 6): found 65, expected less than or equal to 64"),
    ],
)
def test_what_is_wrong_names_its_place(replicas: str, said: str) -> None:
    assert said in problems(RAY + f"replicas: {replicas}\n")


def test_bounds_are_rays_alone() -> None:
    text = problems(SMALLEST + "replicas: {min: 2, max: 4}\n")
    assert "replicas: found min: 2 and max: 4 with backend: compose, expected a number" in text
    assert "Write `backend: ray`, or `replicas: 2`" in text


def test_the_book_keeps_bounds_and_says_what_changed() -> None:
    old = canonical_text(parse_deployment(RAY + "replicas: {min: 1, max: 2}\n", "m"), "m-0")
    new = canonical_text(parse_deployment(RAY + "replicas: {min: 1, max: 3}\n", "m"), "m-0")
    assert parse_deployment(old, "book").replicas == Autoscaling(min=1, max=2)
    assert differences(old, new) == ("replicas.max: 2 -> 3",)


def test_deploy_refuses_what_ray_cannot_do_before_it_looks_at_a_host(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(RAY + "routing: session\n", encoding="utf-8")
    with pytest.raises(InvalidError, match="tiny: routing: found session, expected least_load"), glimpse() as progress:
        plan_deploy(path, Connection(inventory=tmp_path / "none.ini"), progress)
