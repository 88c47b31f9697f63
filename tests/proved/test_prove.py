"""A bundle is rehearsed behind a closed door: the real one passes, one whose image calls out does not."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from tests.e2e.conftest import cache
from tests.proved.proving import HOSTS, NO_PAGE, Desk, phases, unexplained

ROOT = Path(__file__).resolve().parents[2]
PAGE = '  open_webui: {image: "onprem-llm/open-webui:0.12.4"}\n'
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


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    subprocess.run(["sh", "images/build.sh", "registry", "open-webui"], cwd=ROOT, check=True)


def test_the_smallest_deployment_with_its_page_is_proved(tmp_path: Path) -> None:
    model = (ROOT / "examples/tiny.yaml").read_text()
    proof = Desk(tmp_path).make(model, PAGE, cache() / "images").prove(0)
    assert proof["verdict"] == "passed"
    wanted = ("verify", "load", "hosts", "bootstrap", "deploy tiny", "first token tiny", "page", "watch")
    assert {name: phases(proof).get(name) for name in wanted} == dict.fromkeys(wanted, "ok")
    assert proof["watched"] == dict.fromkeys(HOSTS)
    assert unexplained(proof) == []


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
    assert set(phases(proof).values()) <= {"ok", "not tried"}
    assert hashlib.sha256((tmp_path / "bundle/manifest.json").read_bytes()).hexdigest() in json.dumps(proof)
