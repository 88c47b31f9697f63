"""A machine on which a bundle is rehearsed on hosts that are files (made_engine.py), once or killed in the middle."""

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

from tests.bundle.kit import MB, Bench, Connected, Keys, weights_files

ROOT = Path(__file__).resolve().parents[2]
PROOF = {"proof.json", "proof.json.sig", "proof.txt"}
PASSED = ["verify", "load", "hosts", "bootstrap", "deploy tiny", "first token tiny", "page", "watch"]
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

    def make(self, size: int = 10 * MB) -> "Desk":
        """Write a bundle whose weights are of that many bytes."""
        here = Connected(self.root / "here", weights=weights_files(size)).make()
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
        """Rehearse it to the end; return the proof."""
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
