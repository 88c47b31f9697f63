"""Deployments on a Ray cluster of three rehearsal hosts, the real Ray and vLLM: nothing that we do fails a request."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.load.rehearsal import Rehearsal, until
from tests.load.served import Served

MODEL = """\
api_version: 1
name: NAME
model: model
backend: ray
engine:
  image: onprem-llm/vllm-ray:0.29.0-ray2.60.0
  engine_args: {max_model_len: 512, dtype: float32, enforce_eager: true, max_num_seqs: 8}
resources: {gpus: 0}
env: {VLLM_CPU_KVCACHE_SPACE: "1"}
replicas: 1
update: {drain_timeout: 60}
timeouts: {start: 1200, readiness: 120}
"""
ONE = "replicas: 1\n"
BOUNDS = "replicas: {min: 1, max: 2, target_ongoing_requests: 2, upscale_delay: 2, downscale_delay: 10}\n"
LENGTHS = ("max_model_len: 512", "max_model_len: 500")
SLOW = 900  # seconds; an engine on a busy machine with 4 cores takes 40 to 200 s to start, a node about 60
# What a busy machine bears beside an engine that starts; and more than one replica shall have at a time.
LIGHT, HEAVY = 1.0, {"rate": 0, "workers": 6, "tokens": 32}


@dataclass
class OnRay:
    """A deployment on Ray, as status shows it."""

    served: Served

    def deployment(self) -> dict:
        """Return the deployment's line."""
        found = self.served.site.json("status")["deployments"]
        return next(one for one in found if one["name"] == self.served.name)

    def replicas(self) -> dict[str, str]:
        """Return those that run, by the names that Ray gave them: their hosts."""
        rows = self.served.site.json("status")["replicas"]
        return {
            row["project"]: row["host"]
            for row in rows
            if row["deployment"] == self.served.name and row["state"] == "running" and row["health"] == "healthy"
        }

    def becomes(self, count: int, seconds: float = SLOW) -> dict[str, str]:
        """Wait until so many replicas run; return them."""
        until(lambda: len(self.replicas()) == count, seconds, f"{count} replicas of {self.served.name}")
        return self.replicas()

    def says(self) -> str:
        """Ask the model; return its text."""
        body = {"model": self.served.name, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0,
                "ignore_eos": True}  # fmt: skip
        status, value = self.served.rehearsal.ask("/v1/completions", self.served.key, body)
        assert status == 200, value
        text: str = value["choices"][0]["text"]
        return text


@pytest.fixture(scope="module")
def tiny(rehearsal: Rehearsal) -> Iterator[OnRay]:
    """From nothing to a chat: a cluster, and a model on it."""
    site = rehearsal.site
    one = Served(rehearsal, "tiny", MODEL.replace("NAME", "tiny"), rate=LIGHT)
    began = time.monotonic()
    site.run("cluster", "up", "--yes", timeout=1800)
    clustered = time.monotonic()
    try:
        one.deploy()
        print(f"cluster up {clustered - began:.0f} s, deploy {time.monotonic() - clustered:.0f} s")
        one.key = rehearsal.key(one.user)
        yield OnRay(one)
    finally:
        site.run("key", "revoke", one.user, code=None)
        rehearsal.down(one.name)


def test_a_chat_through_the_gateway(tiny: OnRay) -> None:
    assert tiny.says()
    assert tiny.served.site.run("chat", "hello", "--max-tokens", "4").stdout.strip()
    line = tiny.deployment()
    assert (line["ready"], line["wanted"]) == (1, 1)
    ((name, host),) = tiny.becomes(1).items()
    assert host in tiny.served.rehearsal.hosts[1:]
    shown = tiny.served.site.run("logs", name).stdout
    assert "EngineCore" in shown
    assert "Started vLLM engine" in shown


def test_a_second_time_nothing_changes(tiny: OnRay) -> None:
    before = tiny.replicas()
    site = tiny.served.site
    assert site.json("plan", tiny.served.file)["noop"] is True
    born = _nodes_born(tiny.served.rehearsal)
    tiny.served.deploy()
    site.run("cluster", "up", "--yes", timeout=1200)
    assert tiny.replicas() == before
    assert _nodes_born(tiny.served.rehearsal) == born


def test_other_bounds_replace_no_replica_and_load_brings_a_second_one(tiny: OnRay) -> None:
    before = tiny.replicas()
    with tiny.served.load() as load:
        tiny.served.deploy((ONE, BOUNDS))
        assert tiny.replicas() == before
    load.assert_all_good(40)
    print(f"other bounds: {load.report()}")
    with tiny.served.load(**HEAVY) as load:
        both = tiny.becomes(2)
    load.assert_all_good(40)
    print(f"from 1 to 2: {load.report()}")
    assert len(set(both.values())) == 2, f"both replicas are on one host: {both}"
    with tiny.served.load() as load:
        left = tiny.becomes(1)
        load.wait(lambda one: len(one.records) > 60, 300, "60 answers")
    load.assert_all_good(60)
    print(f"back to 1: {load.report()}")
    assert left.items() <= both.items()


def test_a_rolling_update_under_load(tiny: OnRay) -> None:
    before = tiny.becomes(1)
    with tiny.served.load() as load:
        tiny.served.deploy((ONE, BOUNDS), LENGTHS)
        load.wait(lambda one: len(one.records) > 60, 300, "60 answers")
    load.assert_all_good(60)
    print(f"rolling update: {load.report()}")
    assert not set(tiny.becomes(1)) & set(before)


def _nodes_born(rehearsal: Rehearsal) -> dict[str, str]:
    listed = "docker inspect -f '{{.Id}} {{.State.StartedAt}}' $(docker ps -q --filter name=ray-)"
    return {host: rehearsal.lab.exec_root(host, "sh", "-c", listed) for host in rehearsal.hosts}
