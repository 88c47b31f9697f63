"""kill -9 of `prove` in each of its phases: no proof, no command that goes on, and the next run begins anew."""

import json
import subprocess
from pathlib import Path

import pytest
from tests.bundle.kit import Keys, tree
from tests.prove.desk import PASSED, PROOF, Desk, Reached

# What lasts long enough to be killed on any machine: every phase, and each command in it.
PHASES = {"verify", "load", "hosts, lab", "bootstrap", "deploy", "chat", "status", "watch"}


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
    assert [phase["name"] for phase in proof["phases"] if phase["result"] == "ok"] == PASSED
    assert desk.left() == []
    assert {path.name for path in desk.bundle.iterdir() if path.name.startswith("proof")} == PROOF
    subprocess.run(
        ["ssh-keygen", "-Y", "verify", "-f", desk.keys.allowed, "-I", "me@laptop", "-n", "onprem-llm-proof",
         "-s", desk.bundle / "proof.json.sig"],
        stdin=(desk.bundle / "proof.json").open("rb"), check=True, capture_output=True,
    )  # fmt: skip
