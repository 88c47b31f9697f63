"""Deployments on a Ray cluster of three rehearsal hosts, the real Ray and vLLM: nothing that we do fails a request."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.load.driver import Load
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
# What a busy machine bears beside an engine that starts.
LIGHT = 1.0
# Less than one replica shall have at a time, however slow the machine is; and more.
FEW, MANY = {"rate": 0, "workers": 1}, {"rate": 0, "workers": 6, "tokens": 32}
# The gateway's checks take three failures in 1.5 s to leave a node that is gone; in between it asks another one.
SEEN_S = 3.0
# Serve itself, asked on the head's host without anything of ours.
ASK_SERVE = """\
import pathlib, urllib.request
token = pathlib.Path("/srv/onprem-llm/secrets/ray_token").read_text().strip()
asked = urllib.request.Request("http://127.0.0.1:20007/api/serve/applications/")
asked.add_header("Authorization", "Bearer " + token)
print(urllib.request.urlopen(asked, timeout=30).read().decode())
"""


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
        status, value = self.asked()
        assert status == 200, value
        text: str = value["choices"][0]["text"]
        return text

    def asked(self) -> tuple[int, dict]:
        """Ask the model; return the gateway's status and answer."""
        body = {"model": self.served.name, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0,
                "ignore_eos": True}  # fmt: skip
        return self.served.rehearsal.ask("/v1/completions", self.served.key, body)


@pytest.fixture(scope="module")
def tiny(rehearsal: Rehearsal) -> Iterator[OnRay]:
    """From nothing to a chat: a cluster, and a model on it."""
    site = rehearsal.site
    one = Served(rehearsal, "tiny", MODEL.replace("NAME", "tiny"), rate=LIGHT, seconds=2 * SLOW)
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
    with tiny.served.load(**FEW) as load:
        tiny.served.deploy((ONE, BOUNDS))
        assert tiny.replicas() == before
    load.assert_all_good(40)
    print(f"other bounds: {load.report()}")
    with tiny.served.load(**MANY) as load:
        both = tiny.becomes(2)
    load.assert_all_good(40)
    print(f"from 1 to 2: {load.report()}")
    assert len(set(both.values())) == 2, f"both replicas are on one host: {both}"
    with tiny.served.load(**FEW) as load:
        left = tiny.becomes(1)
        load.wait(lambda one: len(one.records) > 60, SLOW, "60 answers")
    load.assert_all_good(60)
    print(f"back to 1: {load.report()}")
    assert left.items() <= both.items()


def test_a_rolling_update_under_load(tiny: OnRay) -> None:
    before = tiny.becomes(1)
    with tiny.served.load() as load:
        tiny.served.deploy((ONE, BOUNDS), LENGTHS)
        load.wait(lambda one: len(one.records) > 60, SLOW, "60 answers")
    load.assert_all_good(60)
    print(f"rolling update: {load.report()}")
    assert not set(tiny.becomes(1)) & set(before)


def test_of_two_models_one_is_taken_down_and_the_other_serves_on(tiny: OnRay) -> None:
    rehearsal = tiny.served.rehearsal
    other = OnRay(Served(rehearsal, "other", MODEL.replace("NAME", "other")))
    other.served.key = tiny.served.key
    tiny.served.deploy(LENGTHS)  # one replica, whatever is asked
    before = tiny.becomes(1)
    try:
        with tiny.served.load() as load:
            other.served.deploy()
            assert other.says()
        load.assert_all_good(40)
        print(f"a second model comes: {load.report()}")
        assert applications(rehearsal) == {"tiny": "RUNNING", "other": "RUNNING"}
        assert set(rehearsal.models(tiny.served.key)) == {"tiny", "other"}
        with tiny.served.load() as load:
            tiny.served.site.run("down", "other", "--yes", timeout=1200)
            load.wait(lambda one: len(one.records) > 60, SLOW, "60 answers")
        load.assert_all_good(60)
        print(f"and goes: {load.report()}")
    finally:
        rehearsal.down("other")
    status, said = other.asked()
    assert status == 404, said
    assert "other" in str(said)
    assert rehearsal.models(tiny.served.key) == ["tiny"]
    assert applications(rehearsal) == {"tiny": "RUNNING"}
    assert tiny.replicas() == before


def test_a_worker_host_that_goes_off_gives_its_replica_to_another(tiny: OnRay) -> None:
    """What may fail is what that host was answering, and what was sent there before the gateway saw it."""
    rehearsal = tiny.served.rehearsal
    tiny.served.deploy(LENGTHS, (ONE, "replicas: 2\n"))
    both = tiny.becomes(2)
    assert len(set(both.values())) == 2
    lost = sorted(set(both.values()))[-1]
    with tiny.served.load() as load:
        off = time.time()
        subprocess.run(["docker", "kill", lost], check=True, capture_output=True, timeout=60)
        try:
            until(lambda: _elsewhere(tiny, lost), SLOW, f"the replica of {lost} is elsewhere")
            print(f"elsewhere after {time.time() - off:.0f} s")
            load.wait(lambda one: len(one.records) > 60, SLOW, "60 answers")
        finally:
            subprocess.run(["docker", "start", lost], check=True, capture_output=True, timeout=60)
    _only_what_it_was_answering(load, off)
    rehearsal.is_back(lost)
    until(lambda: len(tiny.served.up()) >= 2, SLOW, f"{lost} is a node again")
    with tiny.served.load() as load:
        load.wait(lambda one: len(one.records) > 40, SLOW, "40 answers")
    load.assert_all_good(40)


def test_weights_that_are_broken_are_said_and_the_old_ones_serve(tiny: OnRay) -> None:
    site = tiny.served.site
    broken = site.folder / "broken"
    shutil.copytree(site.folder / "model", broken, dirs_exist_ok=True)
    config = (broken / "config.json").read_text()
    wide = json.loads(config)["hidden_size"]
    (broken / "config.json").write_text(config.replace(f'"hidden_size": {wide}', f'"hidden_size": {2 * wide}'))
    assert config != (broken / "config.json").read_text()
    tiny.served.deploy(LENGTHS)
    before, revision, text = tiny.becomes(1), tiny.deployment()["revision"], tiny.says()
    with tiny.served.load() as load:
        done = tiny.served.deploy(LENGTHS, ("model: model", "model: broken"), code=None)
    assert done.returncode != 0
    assert "tiny does not start on Ray" in done.stdout + done.stderr
    load.assert_all_good(40)
    print(f"broken weights: {load.report()}\n{done.stderr[-1500:]}")
    assert tiny.becomes(1) == before
    assert (tiny.deployment()["revision"], tiny.says()) == (revision, text)
    assert tiny.deployment()["ready"] == 1


def applications(rehearsal: Rehearsal) -> dict[str, str]:
    """Return what Ray Serve has on the head, by name: its status."""
    found = json.loads(rehearsal.lab.exec_root(rehearsal.hosts[0], "python3", "-c", ASK_SERVE))
    return {name: one["status"] for name, one in found["applications"].items()}


def _elsewhere(tiny: OnRay, lost: str) -> bool:
    site = tiny.served.site
    rows = site.run("status", "--json", "--skip-unreachable", code=None)
    shown = json.loads(rows.stdout)["replicas"]
    found = [row["host"] for row in shown if row["deployment"] == "tiny" and row["state"] == "running"]
    return len(found) == 2 and lost not in found


def _only_what_it_was_answering(load: Load, off: float) -> None:
    bad = load.bad()
    print(f"a worker host off: {load.report()}")
    late = [one for one in bad if one.started > off + SEEN_S]
    assert not late, f"these began after the gateway knew: {late[:3]}"
    assert len(load.records) - len(bad) > 60, load.report()


def _nodes_born(rehearsal: Rehearsal) -> dict[str, str]:
    listed = "docker inspect -f '{{.Id}} {{.State.StartedAt}}' $(docker ps -q --filter name=ray-)"
    return {host: rehearsal.lab.exec_root(host, "sh", "-c", listed) for host in rehearsal.hosts}
