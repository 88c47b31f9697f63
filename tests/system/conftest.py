"""System scenarios: the real vLLM on CPUs with the tiny model, two replicas on two hosts."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from tests.load.driver import capacity
from tests.load.rehearsal import Rehearsal, rehearsal
from tests.load.served import Served, served

__all__ = ["rehearsal"]

TINY = """\
api_version: 1
name: tiny
model: model
engine:
  image: onprem-llm/vllm-cpu:0.32.0
  engine_args: {max_model_len: 1024, dtype: float32, enforce_eager: true, max_num_seqs: 8}
resources: {gpus: 0}
replicas: REPLICAS
routing: ROUTING
env: {VLLM_CPU_KVCACHE_SPACE: "1"}
timeouts: {start: 600, readiness: 120}
"""


def tiny(replicas: int, routing: str = "least_load") -> str:
    """Return the model.yaml."""
    return TINY.replace("REPLICAS", str(replicas)).replace("ROUTING", routing)


@pytest.fixture(scope="session", autouse=True)
def hosts_of_their_own(rehearsal: Rehearsal) -> None:
    """Give each host its share of this machine's cores: hosts do not slow each other down when an engine starts.

    Nor do they slow down what is not on hosts in life either: the control host, and who sends the load.
    """
    share = f"{0.7 * len(os.sched_getaffinity(0)) / len(rehearsal.hosts):.2f}"
    subprocess.run(["docker", "update", "--cpus", share, *rehearsal.hosts], check=True, capture_output=True)


@pytest.fixture(scope="module")
def loaded(rehearsal: Rehearsal) -> Iterator[Served]:
    """Two replicas, and the rate that is fair to put on them.

    20 requests a second if one replica takes twice that here, else the largest rate under half of what it takes: so
    that the one that is left while the other is replaced has room.
    """
    with served(rehearsal, "tiny", tiny(1), replicas=1) as one:
        takes = capacity(rehearsal.settings("tiny", one.key), workers=16, seconds=30)
        one.more["rate"] = min(20.0, round(0.49 * takes, 2))
        # Some changes start four engines, one after another.
        one.more["seconds"] = 1800
        print(f"one replica takes {takes} requests a second; the load is {one.more['rate']}")
        one.text = tiny(2)
        one.deploy()
        one.in_rotation(2)
        assert len({replica.host for replica in one.replicas().values()}) == 2
        yield one
