"""kill -9 of `prove` in each of its phases: no proof, no command that goes on, and the next run begins anew."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.bundle.kit import MB, Bench, Connected, Keys, tree, weights_files

ROOT = Path(__file__).resolve().parents[2]
PROOF = {"proof.json", "proof.json.sig", "proof.txt"}
# What lasts long enough to be killed on any machine: every phase, and each command in it.
PHASES = {"verify", "load", "hosts, lab", "bootstrap", "deploy", "chat", "status", "watch"}
MODEL = """\
api_version: 1
name: tiny
model: ./Tiny
engine: {image: "registry.example/image-0:v1"}
resources: {gpus: 0}
"""
Reached = Callable[[], bool]


@dataclass(frozen=True)
class Desk:
    """A bundle, and a machine on which it is rehearsed."""

    root: Path
    keys: Keys

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def containers(self) -> Path:
        return self.root / "machine" / "engine" / "containers"

    def make(self) -> "Desk":
        here = Connected(self.root / "here", weights=weights_files(10 * MB)).make()
        lock: dict[str, Any] = json.loads(here.lock.read_bytes())
        (here.root / "model.yaml").write_text(MODEL)
        lock["deployments"][0] |= {"text": MODEL, "sha256": hashlib.sha256(MODEL.encode()).hexdigest()}
        from onprem_llm.spec.lock import Lock

        here.lock.write_bytes(Lock.model_validate_json(json.dumps(lock)).data)
        Bench(self.root, here, self.keys).create(self.bundle)
        (self.root / "machine").mkdir()
        (self.root / "inventory.ini").touch()
        return self

    def start(self, *more: object) -> subprocess.Popen[str]:
        given = ("-i", "inventory.ini", "--allowed-signers", self.keys.allowed, "--work", self.work,
                 "--sign-key", self.keys.key, "--settle", "1", *more)  # fmt: skip
        command = [sys.executable, "-m", "tests.prove.rehearsing", "prove", self.root / "machine", "prove", "bundle"]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "XDG_STATE_HOME": str(self.root / "state")}
        return subprocess.Popen(
            [str(word) for word in (*command, *given)], cwd=self.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=(self.root / "said").open("w"),
        )  # fmt: skip

    def prove(self) -> dict[str, Any]:
        (self.root / "machine" / "slow").unlink(missing_ok=True)
        process = self.start("--json")
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said + (self.root / "said").read_text()
        return dict(json.loads(said))

    def began(self, words: str) -> Reached:
        log = self.root / "machine" / "began"
        return lambda: log.exists() and words in log.read_text()

    def said(self, words: str) -> Reached:
        return lambda: words in (self.root / "said").read_text()

    def kill(self, reached: Reached, slow: str) -> bool:
        """Kill a rehearsal once something is so; tell whether it was killed before it ended. `slow`: a command."""
        (self.root / "machine" / "began").unlink(missing_ok=True)
        (self.root / "machine" / "slow").write_text(slow)
        process = self.start()
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError):  # a folder may go while it is looked into
                if reached():
                    process.kill()
                    break
            time.sleep(0.005)
        process.communicate(timeout=60)
        return process.returncode == -signal.SIGKILL

    def orphans(self) -> list[str]:
        """Return the commands that go on without their rehearsal, once they had ten seconds to end."""
        log = self.root / "machine" / "began"
        lines = log.read_text().splitlines() if log.exists() else []
        until = time.monotonic() + 10
        while alive := [line for line in lines if Path("/proc", line.split()[-1]).exists()]:
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        return alive

    def left(self) -> list[str]:
        """Name what a rehearsal must not leave once it has ended."""
        engine = [path for path in (self.root / "machine" / "engine").rglob("*") if path.is_file()]
        labs = [*(self.root / "state").rglob("lab.json"), *self.work.rglob("*-lab.ini")]
        settings = list(self.work.rglob("inventory.yml"))
        return [str(path) for path in (*engine, *labs, *settings, *self.root.rglob("*.partial"))]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    keys = Keys(tmp_path / "keys").make('namespaces="onprem-llm-bundle,onprem-llm-proof"')
    return Desk(tmp_path, keys).make()


def has(folder: Path, pattern: str, count: int = 1) -> Reached:
    return lambda: sum(1 for _ in folder.glob(pattern)) >= count


def test_killed_again_and_again(desk: Desk) -> None:
    work, carried = desk.work, tree(desk.bundle)
    # An earlier rehearsal passed, and what it says must not stand for one that was killed.
    for name in PROOF:
        (desk.bundle / name).write_text('{"verdict": "passed"}')

    def fewer() -> bool:
        return desk.said("== watch")() and len(list(desk.containers.glob("*"))) == 1

    moments = {
        "before": has(work, "*/lock"),
        "verify": desk.began("bundle verify"),
        "load": desk.began("bundle load"),
        "load, blobs": has(work, "*/site/blobs/sha256/*", 5),
        "load, views": has(work, "*/site/weights/.*.new/**/*"),
        "hosts, lab": has(desk.root / "state", "**/lab.json"),
        "hosts, network": has(desk.root / "machine", "engine/networks/*"),
        "hosts, one": has(desk.containers, "*"),
        "hosts, inventory": has(work, "*/site/inventory.yml"),
        **{command: desk.began(command) for command in ("bootstrap", "deploy", "chat", "status")},
        "watch": desk.said("== watch"),
        "down": fewer,
        "proof": has(desk.bundle, "proof.*"),
    }
    killed = set()
    for phase, reached in moments.items():
        if not desk.kill(reached, slow=phase):  # too short a moment on a busy machine
            assert desk.said("Written to")(), (desk.root / "said").read_text()
            continue
        killed.add(phase)
        assert desk.orphans() == [], phase
        found = tree(desk.bundle)
        assert {name: found[name] for name in found if not name.startswith("proof.")} == carried, phase
        if phase not in {"before", "proof"}:
            assert not PROOF & found.keys(), phase
        elif (desk.bundle / "proof.json").exists():
            proof = json.loads((desk.bundle / "proof.json").read_bytes())
            assert proof["verdict"] == "passed", proof.get("reasons")
            assert (desk.bundle / "proof.json.sig").exists()
    assert killed >= PHASES, (desk.root / "said").read_text()
    proof = desk.prove()
    assert proof["verdict"] == "passed", proof["reasons"]
    assert [phase["name"] for phase in proof["phases"] if phase["result"] == "ok"] == [
        "verify", "load", "hosts", "bootstrap", "deploy tiny", "first token tiny", "page", "watch",
    ]  # fmt: skip
    assert desk.left() == []
    assert {path.name for path in desk.bundle.iterdir() if path.name.startswith("proof")} == PROOF
    subprocess.run(
        ["ssh-keygen", "-Y", "verify", "-f", desk.keys.allowed, "-I", "me@laptop", "-n", "onprem-llm-proof",
         "-s", desk.bundle / "proof.json.sig"],
        stdin=(desk.bundle / "proof.json").open("rb"), check=True, capture_output=True,
    )  # fmt: skip
