"""Bundles for a Ray cluster are rehearsed behind a closed door: its nodes run from what they bring, and serve."""

import subprocess
from pathlib import Path

import pytest
from tests.e2e.conftest import cache
from tests.proved.proving import HOSTS, NO_PAGE, Desk, phases, unexplained

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "onprem-llm/vllm-ray:0.29.0-ray2.60.0"
SETTINGS = f'{NO_PAGE}  ray: {{image: "{IMAGE}"}}\n'
MODEL = f"""\
api_version: 1
name: tiny
model: ./models/tiny
engine:
  image: {IMAGE}
  engine_args: {{max_model_len: 512, dtype: float32, enforce_eager: true, max_num_seqs: 8}}
resources: {{gpus: 0}}
backend: ray
env: {{VLLM_CPU_KVCACHE_SPACE: "1"}}
timeouts: {{start: 900, readiness: 300}}
"""
GROUPS = {"gpu": ("gpu1", "gpu2"), "ray_head": ("gpu1",), "ray_worker": ("gpu2",)}


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    subprocess.run(["sh", "images/build.sh", "registry", "gateway", "vllm-ray"], cwd=ROOT, check=True)


def test_a_cluster_without_a_deployment_is_proved(tmp_path: Path) -> None:
    desk = Desk(tmp_path).make(None, SETTINGS, cache() / "images", GROUPS)
    listed = [image["ref"] for image in desk.json("bundle", "inspect", "bundle")["images"]]
    assert listed == ["onprem-llm/registry:1", IMAGE]
    proof = desk.prove(0)
    wanted = ("verify", "load", "hosts", "bootstrap", "cluster up", "watch")
    assert {name: phases(proof).get(name) for name in wanted} == dict.fromkeys(wanted, "ok")
    found = next(phase["found"] for phase in proof["phases"] if phase["name"] == "cluster up")
    assert found == {"gpu1": "head, ALIVE", "gpu2": "worker, ALIVE"}
    assert proof["verdict"] == "passed"
    assert proof["watched"] == dict.fromkeys(HOSTS)
    assert unexplained(proof) == []


def test_a_deployment_on_ray_is_proved(tmp_path: Path) -> None:
    proof = Desk(tmp_path).make(MODEL, SETTINGS, cache() / "images", GROUPS).prove(0)
    wanted = ("verify", "load", "hosts", "bootstrap", "cluster up", "deploy tiny", "first token tiny", "watch")
    assert {name: phases(proof).get(name) for name in wanted} == dict.fromkeys(wanted, "ok")
    assert proof["verdict"] == "passed"
    assert proof["watched"] == dict.fromkeys(HOSTS)
    assert unexplained(proof) == []
