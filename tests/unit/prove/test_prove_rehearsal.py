"""The rehearsal's course: phases, what a failure leaves out, and that no host stays whatever happens."""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from onprem_llm.errors import OnpremError
from onprem_llm.prove import rehearse
from onprem_llm.prove.likeness import LikeHost, Likeness
from onprem_llm.prove.proof import Proof
from onprem_llm.prove.rehearse import Asked, Rehearsal
from onprem_llm.prove.tool import Ended, Tool
from onprem_llm.spec.lock import Lock

REPORT = {
    "bytes": 10,
    "files": 2,
    "manifest_sha256": "a" * 64,
    "lock_sha256": "b" * 64,
    "signer": None,
    "result": "whole",
}


def model(name: str, gpus: int = 0, task: str = "chat", more: str = "") -> dict[str, str]:
    text = (
        f"api_version: 1\nname: {name}\nmodel: ./m\ntask: {task}\nengine: {{image: 'example/engine:1'}}\n"
        f"resources: {{gpus: {gpus}}}\n{more}"
    )
    sha = hashlib.sha256(text.encode()).hexdigest()
    return {"name": name, "file": f"{name}.yaml", "sha256": sha, "text": text, "weights": "m-0123456789ab"}


RAY = {"image": "rayproject/ray-llm:2.60.0-py311-cu129"}
NODES = [{"host": "a", "role": "head", "ray": "ALIVE"}, {"host": "b", "role": "worker", "ray": "ALIVE"}]


def lock_of(*deployments: dict[str, str], **more: object) -> Lock:
    return Lock.model_validate(more | {
        "onprem_llm": "1", "platform": "linux/amd64", "deployments": deployments, "images": [], "packages": [],
        "wheels": [],
        "weights": [
            {"source": "path", "id": "m", "revision": "", "commit": None, "name": "m-0123456789ab", "files": []}
        ],
    })  # fmt: skip


class World:
    """What the rehearsal calls, and what was called, in order."""

    def __init__(self, site: Path, lock: Lock, address: str | None) -> None:
        self.calls: list[str] = []
        self.trouble: OnpremError | None = None
        self.lines: list[str] = []
        self.failing: dict[str, BaseException] = {}
        self.answers: dict[str, Any] = {
            "bundle": REPORT, "bootstrap": {"gateway": "a"}, "deploy": {}, "plan": {},
            "chat": {"answer": "Mount Everest"}, "cluster": {"nodes": NODES, "error": None},
            "status": {"replicas": [{"project": "open-webui", "address": address}] if address else []},
        }  # fmt: skip
        self.site, self.lock = site, lock
        self.lab = type("Lab", (), {"subnet": "10.213.0.0/24"})()
        self.reach = {"a": {"ansible_host": "10.213.0.11"}}
        self.addresses = {"a": "10.213.0.11"}

    def tool(self, *words: str) -> Ended:
        self.lines.append(" ".join(words))
        self.calls.append(" ".join(words[: 2 if words[0] in {"bundle", "cluster"} else 1]))
        if self.calls[-1] in self.failing:
            raise self.failing[self.calls[-1]]
        if words[:2] == ("bundle", "load"):
            self.site.mkdir(exist_ok=True)
            (self.site / "onprem-llm.lock").write_bytes(self.lock.data)
        return Ended(words, json.dumps(self.answers[words[0]]))

    def up(self, name: str, *rest: object) -> "World":
        self.calls.append("lab up")
        if "lab up" in self.failing:
            raise self.failing["lab up"]
        return self

    def down(self, name: str, folder: Path, say: object) -> None:
        self.calls.append("lab down")
        if "lab down" in self.failing:
            raise self.failing["lab down"]

    def probe(self) -> dict[str, None]:
        self.calls.append("probe")
        return {"a": None}

    def attempts(self) -> list[object]:
        self.calls.append("attempts")
        return []

    def received(self) -> int:
        if "received" in self.failing:
            raise self.failing["received"]
        return 1000 * len(self.calls)


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html><title>Open WebUI</title></html>")

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def page():
    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str):
    """Return a function that plays a rehearsal on a made-up world, and returns both."""

    def run(
        *deployments: dict[str, str],
        ready: bool = False,
        keep: bool = False,
        bases: tuple[Path, ...] = (),
        answers: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        groups: tuple[str, ...] = (),
        **failing: BaseException,
    ) -> tuple[Proof, World]:
        world = World(tmp_path / "site", lock_of(*deployments, site=settings or {}), page)
        world.failing = {name.replace("_", " "): error for name, error in failing.items()}
        world.answers |= answers or {}
        monkeypatch.setattr(rehearse.lab_hosts, "up", world.up)
        monkeypatch.setattr(rehearse.lab_hosts, "down", world.down)
        like = Likeness((LikeHost("a", "a", None),), "debian-13", ready, ())
        asked = Asked(
            folders=(tmp_path / "bundle",),
            allowed=tmp_path / "allowed",
            facts=(tmp_path / "facts.json",),
            bases=bases,
            groups={"a": groups},
            given={"a": {"onprem_llm_site": settings} if settings else {}},
            likeness=lambda lock: like,
            site=tmp_path / "site",
            lab="prove",
            settle=0,
            keep=keep,
            vaults=(tmp_path / "password",),
        )
        made = Proof("bundle", "inventory.ini", "2026-11-21T10:00:00+00:00")
        worlds.append(world)
        world.trouble = Rehearsal(asked, made, world.tool, lambda text: None).run()
        return made, world

    worlds: list[World] = []
    run.worlds = worlds  # type: ignore[attr-defined]
    return run


def test_the_whole_course(play) -> None:
    proof, world = play(model("tiny"))
    assert world.calls == [
        "bundle verify", "bundle load", "lab up", "probe", "bootstrap", "deploy", "chat", "status", "probe",
        "attempts", "lab down",
    ]  # fmt: skip
    assert [(phase.name, phase.kind, phase.result) for phase in proof.phases] == [
        ("verify", "real", "ok"), ("load", "real", "ok"), ("hosts", "substituted", "ok"), ("bootstrap", "real", "ok"),
        ("deploy tiny", "real", "ok"), ("first token tiny", "real", "ok"), ("page", "real", "ok"),
        ("watch", "real", "ok"),
    ]  # fmt: skip
    assert proof.verdict == "passed"
    page = next(phase for phase in proof.phases if phase.name == "page")
    assert page.found == {"title": "Open WebUI"}
    assert all(phase.seconds is not None for phase in proof.phases)


def test_the_ray_cluster_comes_up_before_what_goes_there(play) -> None:
    proof, world = play(model("tiny"), settings={"ray": RAY}, groups=("ray_head",))
    assert world.calls[4:8] == ["bootstrap", "cluster up", "cluster status", "deploy"]
    phase = next(phase for phase in proof.phases if phase.name == "cluster up")
    assert (phase.kind, phase.found) == ("real", {"a": "head, ALIVE", "b": "worker, ALIVE"})
    assert proof.verdict == "passed"


def test_a_bundle_of_a_cluster_alone_is_proved_by_the_cluster(play) -> None:
    proof, world = play(settings={"ray": RAY}, groups=("ray_head",))
    assert proof.verdict == "passed"
    assert "status" not in world.calls
    proof, _ = play(settings={"ray": RAY}, groups=("ray_head",), cluster_up=OnpremError("no such image"))
    assert proof.reasons == ["cluster up: no such image"]


def test_a_cluster_speaks_for_no_deployment(play) -> None:
    proof, _ = play(model("big", gpus=8), settings={"ray": RAY}, groups=("ray_head",))
    assert proof.reasons == ["no deployment answered: none was tried on these hosts"]


def test_a_node_that_did_not_join_fails_the_cluster(play) -> None:
    nodes = [NODES[0], {"host": "b", "role": "worker", "ray": None}]
    proof, world = play(
        settings={"ray": RAY}, groups=("ray_head",), answers={"cluster": {"nodes": nodes, "error": None}}
    )
    (reason,) = proof.reasons
    assert reason == ("cluster up: not all nodes are in the Ray cluster: a: head, ALIVE; b: worker, not in the cluster")
    assert world.calls[-1] == "lab down"


def test_an_inventory_without_a_head_says_that_the_cluster_was_not_tried(play) -> None:
    proof, world = play(settings={"ray": RAY})
    assert "cluster up" not in world.calls
    phase = next(phase for phase in proof.phases if phase.name == "cluster up")
    assert (phase.kind, phase.note) == ("not tried", "the inventory's group ray_head has no host")
    assert proof.reasons == ["no deployment answered: none was tried on these hosts"]


def test_a_cluster_that_somebody_else_runs_is_not_rehearsed(play) -> None:
    """Nor asked for: from a closed host that would be an attempt to get out."""
    there = {"ray": {"address": "http://10.9.0.1:8265", "weights": "/mnt/weights"}}
    proof, world = play(model("here"), model("there", more="backend: ray\n"), settings=there)
    assert proof.verdict == "passed"
    assert "cluster up" not in world.calls
    assert world.calls.count("deploy") == 1
    why = {phase.name: phase.note for phase in proof.phases if phase.kind == "not tried"}
    assert list(why) == ["cluster up", "deploy there", "first token there"]
    assert all("somebody else runs the site's Ray cluster" in str(note) for note in why.values())
    assert "ray.address" in [one.what for one in proof.substitutes]
    alone, _ = play(model("there", more="backend: ray\n"), settings=there)
    assert alone.reasons == ["no deployment answered: none was tried on these hosts"]


def test_what_the_site_has_is_loaded_first_and_the_facts_refuse_a_bundle_for_other_hosts(play, tmp_path: Path) -> None:
    proof, world = play(model("tiny"), bases=(tmp_path / "first",))
    loads = [line for line in world.lines if line.startswith("bundle load")]
    assert [line.split()[2].rpartition("/")[2] for line in loads] == ["first", "bundle"]
    assert [f"--facts {tmp_path}/facts.json" in line for line in loads] == [False, True]
    assert [phase.name for phase in proof.phases][:3] == ["verify", "load first", "load"]


def test_what_needs_gpus_is_planned_and_said_not_to_be_tried(play) -> None:
    proof, world = play(model("big", gpus=8), model("tiny"))
    assert [(phase.name, phase.kind) for phase in proof.phases if "big" in phase.name] == [
        ("plan big", "real"), ("deploy big", "not tried"), ("first token big", "not tried"),
    ]  # fmt: skip
    assert proof.verdict == "passed"
    assert "not tried: deploy big, first token big" in proof.text
    assert world.calls.count("deploy") == 1


def test_with_nothing_but_gpu_deployments_there_is_no_pass(play) -> None:
    proof, _ = play(model("big", gpus=8))
    assert proof.verdict == "failed"
    assert "no deployment answered" in proof.reasons[0]


def test_hosts_that_have_the_packages_say_that_packages_were_not_tried(play) -> None:
    proof, _ = play(model("tiny"), ready=True)
    assert [(phase.name, phase.kind) for phase in proof.phases][3:5] == [
        ("packages", "not tried"), ("bootstrap", "substituted"),
    ]  # fmt: skip


def test_a_failed_deploy_still_says_what_was_tried_outside_and_takes_the_hosts_down(play) -> None:
    proof, world = play(model("tiny"), deploy=OnpremError("onprem-llm deploy: exit code 5", details="no such image"))
    assert world.calls[-3:] == ["probe", "attempts", "lab down"]
    assert "chat" not in world.calls
    assert proof.reasons == ["deploy tiny: onprem-llm deploy: exit code 5"]
    assert "no such image" in str(next(phase.error for phase in proof.phases if phase.name == "deploy tiny"))


def test_a_bundle_that_is_not_verified_reaches_nothing(play) -> None:
    proof, world = play(model("tiny"), bundle_verify=OnpremError("unsigned"))
    assert world.calls == ["bundle verify"]
    assert proof.verdict == "failed"


def test_hosts_that_cannot_be_made_are_removed_as_far_as_they_came(play) -> None:
    proof, world = play(model("tiny"), lab_up=OnpremError("no space left"))
    assert world.calls[-1] == "lab down"
    assert proof.reasons[0] == "hosts: no space left"


def test_an_empty_answer_is_no_answer(play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "tool", lambda self, *words: (
        Ended(words, '{"answer": " "}') if words[0] == "chat" else tool(self, *words)))  # fmt: skip
    proof, _ = play(model("tiny"))
    assert proof.reasons == ["first token tiny: it answered with nothing"]


tool = World.tool


@pytest.mark.parametrize("where", ["lab up", "bootstrap", "deploy", "chat"])
def test_ctrl_c_takes_the_hosts_down(play, where: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(model("tiny"), **{where: KeyboardInterrupt()})
    assert play.worlds[0].calls[-1] == "lab down"


def test_keep_leaves_the_hosts_and_their_inventory(play, tmp_path: Path) -> None:
    _, world = play(model("tiny"), keep=True)
    assert "lab down" not in world.calls
    assert (tmp_path / "site" / "inventory.yml").exists()


@pytest.mark.parametrize(
    "failing", [{}, {"chat": OnpremError("no answer")}, {"lab_down": OnpremError("docker failed")}]
)
def test_the_sites_settings_do_not_stay(play, tmp_path: Path, failing: dict[str, OnpremError]) -> None:
    _, world = play(model("tiny"), **failing)
    assert "bootstrap" in world.calls
    assert not (tmp_path / "site" / "inventory.yml").exists()


def test_what_asks_the_hosts_gets_the_vaults_password_file(play, tmp_path: Path) -> None:
    _, world = play(model("big", gpus=8), model("tiny"))
    asking = [line for line in world.lines if "-i " in line]
    assert [line.split()[0] for line in asking] == ["bootstrap", "plan", "deploy", "chat", "status"]
    assert all(f"--vault-password-file {tmp_path}/password" in line for line in asking)


def test_a_tool_that_fails_says_its_last_words(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(OnpremError) as error:
        Tool(tmp_path, said.append)("plan", "nothing.yaml", "-i", "nowhere.ini")
    assert "exit code 3" in error.value.message
    assert "nowhere.ini" in str(error.value.details)
    assert any("nowhere.ini" in line for line in said)
    assert Tool(tmp_path, said.append)("--version").stdout.startswith("onprem-llm")


@pytest.fixture
def sigint() -> Iterator[None]:
    """In the background of a script it is ignored, by what is started here too: nobody would be interrupted."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_reaches_the_command_that_runs_and_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    code = (
        "import sys, time\n"
        "try:\n    open(sys.argv[1], 'a').write('began '); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.5); open(sys.argv[1], 'a').write('cleaned'); sys.exit(130)\n"
    )
    monkeypatch.setattr("onprem_llm.prove.tool.PROGRAM", ["python3", "-c", code])

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not (marks.exists() and marks.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        Tool(tmp_path, lambda text: None)(str(marks))
    assert marks.read_text() == "began cleaned"


def interrupted_once(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ctrl-C come once the command that leaves the mark has begun, before its output is read."""

    class Interrupted(threading.Thread):
        def start(self) -> None:
            while not (mark.exists() and mark.read_text()):
                time.sleep(0.05)
            raise KeyboardInterrupt

    monkeypatch.setattr("onprem_llm.prove.tool.threading.Thread", Interrupted)


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_in_a_commands_first_moment_reaches_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr("onprem_llm.prove.tool.PROGRAM", ["python3", "-c", code])
    mark = tmp_path / "pid"

    interrupted_once(mark, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        Tool(tmp_path, lambda text: None)(str(mark))
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_one_that_is_stopped_in_the_background_of_a_script_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT is ignored there and by all that is started, but this is how a rehearsal ends its commands."""
    mark = tmp_path / "mark"
    code = (
        "from onprem_llm.prove.within import begin; begin()\nimport sys, time\n"
        "try:\n    open(sys.argv[1], 'w').write('began '); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    open(sys.argv[1], 'a').write('cleaned')\n"
    )
    monkeypatch.setattr("onprem_llm.prove.tool.PROGRAM", [sys.executable, "-c", code])
    monkeypatch.setattr("onprem_llm.prove.tool.STOP_S", 10)

    interrupted_once(mark, monkeypatch)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            Tool(tmp_path, lambda text: None)(str(mark))
    finally:
        signal.signal(signal.SIGINT, before)
    assert mark.read_text() == "began cleaned"


def test_bytes_that_cannot_be_counted_cost_their_number_and_nothing_else(play) -> None:
    proof, _ = play(model("tiny"), received=OnpremError("docker failed"))
    assert proof.verdict == "passed"
    assert next(phase.bytes for phase in proof.phases if phase.name == "bootstrap") is None


@pytest.mark.parametrize(
    ("command", "phase", "lacks"),
    [("bootstrap", "bootstrap", "gateway"), ("chat", "first token tiny", "answer"), ("status", "page", "replicas")],
)
def test_a_report_that_lacks_something_is_an_error_of_its_phase(play, command: str, phase: str, lacks: str) -> None:
    proof, world = play(model("tiny"), answers={command: {"other": 1}})
    assert proof.reasons == [f"{phase}: the report of a command lacks '{lacks}'"]
    assert world.calls[-3:] == ["probe", "attempts", "lab down"]


def test_a_status_that_fails_keeps_what_was_shown_before(play) -> None:
    proof, world = play(model("tiny"), status=OnpremError("onprem-llm status: exit code 4"))
    assert proof.reasons == ["page: onprem-llm status: exit code 4"]
    assert world.calls[-1] == "lab down"


def test_hosts_that_stay_are_told_of_and_leave_the_verdict(play) -> None:
    proof, world = play(model("tiny"), lab_down=OnpremError("docker failed"))
    assert proof.verdict == "passed"
    assert world.trouble is not None
    assert world.trouble.message == "docker failed"


def test_ctrl_c_is_ctrl_c_also_where_hosts_stay(play) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(model("tiny"), chat=KeyboardInterrupt(), lab_down=OnpremError("docker failed"))
