"""A bundle is rehearsed behind a closed door: the real one passes, one whose image calls out does not."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import cache
from tests.made_facts import host_facts

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"gpu1": "198.18.0.11", "gpu2": "198.18.0.12"}
DISK = {"mount": "/", "filesystem": "ext4", "size_bytes": 10**12, "free_bytes": 9 * 10**11}
SETTINGS = """\
onprem_llm_site:
  images_dir: {images}
"""
PAGE = '  open_webui: {image: "onprem-llm/open-webui:0.12.4"}\n'
NO_PAGE = "  open_webui: {enabled: false}\n"
OUTSIDE = ("203.0.113.7", 443)  # RFC 5737: nobody's
# In Python's own folder, as a library that reports home has it.
HOME = f"""\
import socket, sys, threading, time
def call():
    while True:
        try:
            socket.create_connection({OUTSIDE}, 2)
        except OSError:
            time.sleep(3)
if "serve" in sys.argv or "api_server" in " ".join(sys.argv):
    threading.Thread(target=call, daemon=True).start()
"""
CALLS = """\
FROM onprem-llm/stub-engine:1
COPY home.py home.pth /usr/lib/python3/dist-packages/
"""


@dataclass(frozen=True)
class Desk:
    """A folder of a connected machine, from model.yaml to a signed bundle."""

    folder: Path

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command here; return what it printed."""
        command = [str(Path(sys.executable).with_name("onprem-llm")), *words]
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=1800)
        shown = f"{' '.join(words)}: exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        assert ended.returncode == code, shown
        assert "Traceback" not in shown
        return shown

    def make(self, model: str, page: str, images: Path) -> "Desk":
        """Write the site's files; make the lock and the bundle."""
        lines = [f"{name} ansible_host={address} ansible_user=ops" for name, address in HOSTS.items()]
        (self.folder / "inventory.ini").write_text("\n".join(["[gpu]", *lines, ""]))
        (self.folder / "group_vars").mkdir()
        (self.folder / "group_vars/all.yml").write_text(SETTINGS.format(images=images) + page)
        (self.folder / "tiny.yaml").write_text(model)
        shutil.copytree(cache() / "models" / "tiny", self.folder / "models" / "tiny")
        facts = {"schema_version": 1, "hosts": {name: host_facts(disks=[DISK]) for name in HOSTS}}
        (self.folder / "facts.json").write_text(json.dumps(facts))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key")], check=True)
        public = (self.folder / "key.pub").read_text()
        spaces = "onprem-llm-bundle,onprem-llm-proof"
        (self.folder / "allowed").write_text(f'laptop namespaces="{spaces}" {public}')
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        lock = ("lock", "tiny.yaml", "--facts", "facts.json", "--site", "group_vars/all.yml", "--python", version)
        self.run(*lock)
        self.run("bundle", "create", "--lock", "onprem-llm.lock", "-o", "bundle", "--sign-key", "key")
        return self

    def prove(self, code: int) -> dict[str, Any]:
        """Rehearse the bundle; return proof.json, whose signature was checked as a site would."""
        given = ("--facts", "facts.json", "--allowed-signers", "allowed", "--sign-key", "key", "--name", "proved")
        print(self.run("prove", "bundle", "-i", "inventory.ini", *given, code=code))
        proof = self.folder / "bundle" / "proof.json"
        with proof.open("rb") as signed:
            subprocess.run(
                ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "laptop", "-n", "onprem-llm-proof",
                 "-s", "bundle/proof.json.sig"], cwd=self.folder, stdin=signed, check=True, capture_output=True,
            )  # fmt: skip
        found: dict[str, Any] = json.loads(proof.read_bytes())
        return found


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    subprocess.run(["sh", "images/build.sh", "registry", "open-webui"], cwd=ROOT, check=True)


def test_the_smallest_deployment_with_its_page_is_proved(tmp_path: Path) -> None:
    model = (ROOT / "examples/tiny.yaml").read_text()
    proof = Desk(tmp_path).make(model, PAGE, cache() / "images").prove(0)
    assert proof["verdict"] == "passed"
    phases = {phase["name"]: phase["result"] for phase in proof["phases"]}
    wanted = ("verify", "load", "hosts", "bootstrap", "deploy tiny", "first token tiny", "page", "watch")
    assert {name: phases.get(name) for name in wanted} == dict.fromkeys(wanted, "ok")
    assert proof["watched"] == dict.fromkeys(HOSTS)
    assert [one for one in proof["attempts"] if not one["explained"]] == []


def test_an_image_that_calls_out_is_named_with_host_and_process(tmp_path: Path) -> None:
    context, images = tmp_path / "context", tmp_path / "images"
    context.mkdir()
    images.mkdir()
    (context / "Dockerfile").write_text(CALLS)
    (context / "home.py").write_text(HOME)
    (context / "home.pth").write_text("import home\n")
    image = "onprem-llm/stub-engine:home"
    subprocess.run(["docker", "build", "-q", "-t", image, str(context)], check=True, capture_output=True)
    subprocess.run(["docker", "save", image, "-o", str(images / "engine.tar")], check=True)
    for name in ("gateway", "registry"):
        archive = next((cache() / "images").glob(f"{name}-*.tar"))
        (images / archive.name).symlink_to(archive)
    model = f"""\
api_version: 1
name: tiny
model: ./models/tiny
engine: {{image: "{image}", engine_args: {{max_model_len: 512}}}}
resources: {{gpus: 0}}
"""
    proof = Desk(tmp_path).make(model, NO_PAGE, images).prove(5)
    assert proof["verdict"] == "failed"
    out = [one for one in proof["attempts"] if one["destination"] == OUTSIDE[0]]
    assert out, proof["reasons"]
    assert {one["port"] for one in out} == {OUTSIDE[1]}
    assert {one["host"] for one in out} <= set(HOSTS)
    assert all("/usr/local/bin/vllm serve" in one["command"] for one in out), out
    # By digest: it came out of the site's registry.
    assert all("/onprem-llm/stub-engine@sha256:" in one["container"]["image"] for one in out), out
    assert any(f"tried to reach {OUTSIDE[0]}" in reason and "vllm" in reason for reason in proof["reasons"])
    # All else went well: what failed it is that it called out.
    assert {phase["result"] for phase in proof["phases"]} <= {"ok", "not tried"}
    assert hashlib.sha256((tmp_path / "bundle/manifest.json").read_bytes()).hexdigest() in json.dumps(proof)
