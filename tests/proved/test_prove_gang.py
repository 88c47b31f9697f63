"""A bundle of a replica over two hosts is rehearsed behind a closed door, with the real vLLM."""

from pathlib import Path

from tests.e2e.conftest import cache
from tests.proved.proving import HOSTS, NO_PAGE, Desk, phases, unexplained

GANG = """\
api_version: 1
name: wide
model: ./models/tiny
engine:
  image: onprem-llm/vllm-cpu:0.32.0
  engine_args: {max_model_len: 512, dtype: float32, enforce_eager: true, max_num_seqs: 8, tensor_parallel_size: 2}
  shm_size: 1g
resources: {gpus: 0, nodes: 2}
env: {VLLM_CPU_KVCACHE_SPACE: "1", TORCH_COMPILE_DISABLE: "1"}
timeouts: {start: 900, readiness: 120}
"""


def test_a_replica_over_two_hosts_is_proved(tmp_path: Path) -> None:
    proof = Desk(tmp_path).make(GANG, NO_PAGE, cache() / "images").prove(0)
    assert proof["verdict"] == "passed"
    wanted = ("verify", "load", "hosts", "bootstrap", "deploy wide", "first token wide", "watch")
    assert {name: phases(proof).get(name) for name in wanted} == dict.fromkeys(wanted, "ok")
    assert proof["watched"] == dict.fromkeys(HOSTS)
    assert unexplained(proof) == []
