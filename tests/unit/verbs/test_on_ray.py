"""What status and logs say of deployments on Ray, from what the look says of Ray Serve."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from recorded_facts import Facts, lab

from onprem_llm.commands.logs import chosen
from onprem_llm.commands.status import Seen, see, tables
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.look import View
from onprem_llm.probe import parse_current
from onprem_llm.ray_logs import SCRIPT, RayLog
from onprem_llm.run_events import HostFailure

MODEL = """\
api_version: 1
name: {name}
model: model
backend: ray
engine: {{image: "ray:1"}}
replicas: {replicas}
"""
STARTED = 1_795_219_200.0


def node(role: str, address: str) -> Facts:
    labels = {"onprem-llm.address": address, "onprem-llm.ports": "20000-20999", "onprem-llm.ray": role}
    container = {"name": f"ray-{role}-ray-1", "id": role, "service": "ray", "image": "sha256:9", "state": "running",
                 "health": "healthy", "labels": labels}  # fmt: skip
    return {"path": f"/srv/ray-{role}", "files": {}, "containers": [container]}


def replica(name: str, address: str | None, state: str = "RUNNING", worker: str | None = "w") -> Facts:
    return {"id": name, "state": state, "address": address, "log": f"/serve/{name}.log",
            "worker": worker and f"{worker}-{name}", "started": STARTED}  # fmt: skip


def app(*replicas: Facts, status: str = "RUNNING", target: int | None = None, **engine: Any) -> Facts:
    wanted = len(replicas) if target is None else target
    part = {"status": "HEALTHY", "message": "", "target": wanted, "replicas": list(replicas), "dead": [], **engine}
    ingress = {"status": "HEALTHY", "message": "", "target": 1, "replicas": [replica("in1", "10.0.0.3")], "dead": []}
    return {"status": status, "message": "", "told": "d", "parts": {"LLMServer:tiny": part, "OpenAiIngress": ingress}}


def server(address: str, **changes: Any) -> Facts:
    return {
        "address": address,
        "port": 8100,
        "admin": "ready",
        "up": True,
        "check": "L7OK/200",
        "sessions": 1,
        **changes,
    }


@pytest.fixture
def facts() -> dict[str, Facts]:
    """Two hosts: gateway and head on lab-1, a worker with one of tiny's two replicas on lab-2."""
    found = lab()
    one, two = found["lab-1"], found["lab-2"]
    first, second = one["addresses"][0], two["addresses"][0]
    one["projects"] = {"ray-head": node("head", first)}
    two["projects"] = {"ray-worker": node("worker", second)}
    one["images"] = [{"id": "sha256:9", "tags": ["ray:1"], "digests": []}]
    entries = {
        name: {"revision": 3, "model_yaml": MODEL.format(name=name, replicas=how), "images": {}, "placement": {}}
        for name, how in (("tiny", "{min: 1, max: 3}"), ("tiny-b", "1"))
    }
    one["book"] = {"gateway": True, "deployments": entries}
    one["gateway"] = {"running": True, "error": None, "servers": {
        "tiny/ray-a": server(second, sessions=4), "tiny/ray-b": server(first, up=False, sessions=0),
        "tiny-b/ray-a": server(second, up=False),
    }}  # fmt: skip
    tiny = app(replica("k3", second), replica("x7", None, "STARTING", None), target=2)
    one["serve"] = {"error": None, "port": 8100, "proxies": {}, "applications": {"tiny": tiny, "tiny-b": app()}}
    return found


def view(facts: dict[str, Facts], silent: tuple[str, ...] = ()) -> View:
    failures = tuple(HostFailure(name, "t", "no route", unreachable=True) for name in silent)
    return View(parse_current({name: one for name, one in facts.items() if name not in silent}, silent), failures, "s")


def seen(facts: dict[str, Facts], silent: tuple[str, ...] = ()) -> Seen:
    return see(view(facts, silent), Connection(Path("/i/inventory.ini")))


def rows(of: Seen) -> dict[str, tuple[str | None, str, bool]]:
    return {row.project: (row.host, row.state, row.ready) for row in of.replicas if row.deployment}


def apps(facts: dict[str, Facts]) -> dict[str, Any]:
    found: dict[str, Any] = facts["lab-1"]["serve"]["applications"]
    return found


def test_replicas_are_where_ray_has_placed_them(facts: dict[str, Facts]) -> None:
    found = seen(facts)
    assert rows(found) == {
        "tiny-k3": ("lab-2", "running", True),
        "tiny-x7": (None, "waits for room", False),
        "tiny-b": (None, "no replica", False),
    }
    tiny, other = found.deployments
    assert (tiny.ready, tiny.wanted, tiny.bounds, tiny.requests, tiny.revision) == (1, 2, "1-3", 4, 3)
    assert (other.ready, other.wanted, other.bounds) == (0, 0, None)
    assert "1/2 (1-3)" in tables(found)
    shown = found.as_json()["deployments"]
    assert isinstance(shown, list)
    assert shown[0]["bounds"] == "1-3"
    row = next(row for row in found.replicas if row.project == "tiny-k3")
    assert (row.image, row.rotation, row.revision, (row.up_seconds or 0) > 0) == ("sha256:9", "in", "3", True)


def test_a_replica_that_no_gateway_lets_in_is_not_ready(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["gateway"]["servers"]["tiny/ray-a"]["up"] = False
    found = seen(facts)
    assert next(row for row in found.replicas if row.project == "tiny-k3").rotation == "down"
    assert found.deployments[0].ready == 0


def test_while_it_is_built_it_is_said_and_not_called_missing(facts: dict[str, Facts]) -> None:
    apps(facts)["tiny"] = {"status": "DEPLOYING", "message": "", "told": "d", "parts": {}}
    found = seen(facts)
    assert rows(found)["tiny"] == (None, "deploying", False)
    assert (found.deployments[0].ready, found.deployments[0].wanted) == (0, 1)
    assert "tiny: Ray says DEPLOYING: onprem-llm logs tiny" in found.notes


def test_why_it_is_not_well_is_in_rays_words(facts: dict[str, Facts]) -> None:
    apps(facts)["tiny"] = app(status="DEPLOY_FAILED", target=1)
    apps(facts)["tiny"]["parts"]["LLMServer:tiny"].update(status="DEPLOY_FAILED", message="RuntimeError: no weights")
    found = seen(facts)
    assert "tiny: Ray says DEPLOY_FAILED, LLMServer:tiny: RuntimeError: no weights: onprem-llm logs tiny" in found.notes
    assert rows(found)["tiny"] == (None, "deploy failed", False)
    assert next(row for row in found.replicas if row.project == "tiny").revision is not None


def test_a_head_that_forgot_says_what_to_do(facts: dict[str, Facts]) -> None:
    del apps(facts)["tiny"]
    found = seen(facts)
    assert rows(found)["tiny"] == (None, "missing", False)
    (note,) = [note for note in found.notes if note.startswith("tiny: ")]
    assert "started anew and forgot" in note
    assert "onprem-llm deploy" in note


def test_a_head_that_does_not_answer_makes_replicas_unknown(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["serve"] = {"error": "the cluster's head does not answer: TimeoutError: timed out"}
    found = seen(facts)
    assert rows(found) == {"tiny": (None, "unknown", False), "tiny-b": (None, "unknown", False)}
    (note,) = [note for note in found.notes if "head does not answer" in note]
    assert note.startswith("lab-1: the cluster's head does not answer: TimeoutError: timed out: what Ray serves is not")
    with pytest.raises(OnpremError, match="where tiny's replicas are is not known"):
        chosen(view(facts), "tiny", None)


def test_no_head_at_all(facts: dict[str, Facts]) -> None:
    del facts["lab-1"]["serve"]
    assert any("No host that answered has the Ray cluster's head" in note for note in seen(facts).notes)


def test_whose_log_is_shown(facts: dict[str, Facts]) -> None:
    found = chosen(view(facts), "tiny", None)
    log = found["tiny-k3"]
    assert list(found) == ["tiny-k3"]
    assert isinstance(log, RayLog)
    assert (log.host.name, log.project.name, log.worker) == ("lab-2", "ray-worker", "w-k3")
    assert log.argv(True, 7)[3:] == ["sh", "ray-worker-ray-1", "7", "w-k3", "-F"]
    assert list(chosen(view(facts), "tiny-k3", None)) == ["tiny-k3"]
    apps(facts)["tiny"]["parts"]["OpenAiIngress"]["replicas"][0]["address"] = facts["lab-2"]["addresses"][0]
    assert list(chosen(view(facts), "tiny-in1", None)) == ["tiny-in1"]
    with pytest.raises(InvalidError, match="whose replicas have names, not numbers"):
        chosen(view(facts), "tiny", 0)
    with pytest.raises(InvalidError, match=r"tiny-b has no log on the hosts that answered: Ray says RUNNING$"):
        chosen(view(facts), "tiny-b", None)
    with pytest.raises(InvalidError, match="nothing called 'nope'"):
        chosen(view(facts), "nope", None)
    assert list(chosen(view(facts), "ray-worker", None)) == ["ray-worker"]


def test_of_one_that_never_ran_those_that_ended_are_shown(facts: dict[str, Facts]) -> None:
    second = facts["lab-2"]["addresses"][0]
    apps(facts)["tiny"] = app(status="DEPLOY_FAILED", dead=[replica("old", second, "STOPPED")])
    assert list(chosen(view(facts), "tiny", None)) == ["tiny-old"]
    apps(facts)["tiny"] = app(replica("k3", second), dead=[replica("old", second, "STOPPED")])
    assert list(chosen(view(facts), "tiny", None)) == ["tiny-k3"]
    with pytest.raises(InvalidError, match="its replicas: tiny-k3"):
        chosen(view(facts, ("lab-2",)), "tiny", None)


def test_the_script_reads_the_files_of_one_process(tmp_path: Path) -> None:
    logs = tmp_path / "proc/7/root/tmp/ray/session_1/logs"
    logs.mkdir(parents=True)
    (logs.parent.parent / "session_latest").symlink_to("/tmp/ray/session_1")
    for name, text in (
        ("worker-w1-01-7.out", "one\ntwo\n"),
        ("worker-w1-01-7.err", "three\n"),
        ("worker-w2-9.out", "x"),
    ):
        (logs / name).write_text(text)
    (tmp_path / "docker").write_text('#!/bin/sh\necho "${PID:-7}"\n')
    (tmp_path / "docker").chmod(0o755)
    script = SCRIPT.replace("/proc/", f"{tmp_path}/proc/")

    def said(worker: str, lines: str = "1", pid: str = "7") -> tuple[str, str]:
        words = ["sh", "-c", script, "sh", "ray-worker-ray-1", lines, worker, ""]
        done = subprocess.run(
            words, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PID": pid}, capture_output=True, check=False
        )
        return done.stdout.decode(), done.stderr.decode().strip()

    assert said("w1") == ("three\ntwo\n", "")
    assert said("w1", "5") == ("three\none\ntwo\n", "")
    assert said("w9") == ("", "Ray has no log of it any more: its node was started anew since")
    assert said("w1", pid="0") == ("", "the node (ray-worker-ray-1) does not run")
