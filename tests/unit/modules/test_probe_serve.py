"""What the look says of Ray Serve, from answers that Ray 2.60 gave (serve_answers), without what nobody reads."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onprem_llm.rendering import ray_node
from onprem_llm.rendering.ray_serve import RayApplication, application, server_name
from onprem_llm.serve_state import ENGINE_PART, ServeState, parse_serve, told_digest
from onprem_llm.spec.deployment import parse_deployment

from .conftest import Load

ANSWERS = Path(__file__).with_name("serve_answers")
# What the answers were told.
MODEL = """\
api_version: 1
name: tiny
model: /x
backend: ray
engine:
  image: "onprem-llm/vllm-ray:0.29.0-ray2.60.0"
  engine_args: {max_model_len: 512, dtype: float32, enforce_eager: true}
env: {VLLM_CPU_KVCACHE_SPACE: "1"}
resources: {gpus: 0}
replicas: 1
"""
NOTHING = {"controller_info": {}, "proxies": {}, "applications": {}, "target_capacity": None}


class Dashboard(http.server.BaseHTTPRequestHandler):
    """Gives one answer, to those who have the token."""

    answer: object = NOTHING

    def do_GET(self) -> None:
        assert self.path == "/api/serve/applications/"
        known = self.headers.get("Authorization") == "Bearer t0ken"
        self.send_response(200 if known else 403)
        self.end_headers()
        self.wfile.write(json.dumps(type(self).answer).encode() if known else b"Forbidden")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def dashboard() -> Iterator[tuple[type[Dashboard], int]]:
    class One(Dashboard):
        """A dashboard of its own."""

    with http.server.HTTPServer(("127.0.0.1", 0), One) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield One, server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def part(load: Load) -> ModuleType:
    return load("host_probe/onprem_llm_probe_serve")


def head(port: int, **changes: object) -> dict[str, Any]:
    first = port - ray_node.DASHBOARD
    return {"state": "running", "labels": {"onprem-llm.ports": f"{first}-{first + 999}"}, **changes}


def looked(part: ModuleType, root: Path, *containers: dict[str, Any], key: str = "t0ken") -> ServeState:
    (root / "ray-head").mkdir(exist_ok=True)
    (root / "ray-head" / "compose.yaml").write_text("name: ray-head\n")
    (root / "secrets").mkdir(exist_ok=True)
    (root / "secrets" / "ray_token").write_text(f"{key}\n")
    found = parse_serve(json.loads(json.dumps(part.serve(str(root), list(containers)))))
    assert found is not None
    return found


def answered(part: ModuleType, root: Path, dashboard: tuple[type[Dashboard], int], answer: object) -> ServeState:
    dashboard[0].answer = answer
    found = looked(part, root, head(dashboard[1]))
    assert found.error is None
    return found


def recorded(name: str) -> Any:
    return json.loads((ANSWERS / f"{name}.json").read_text())


def test_applications_with_their_replicas(
    part: ModuleType, tmp_path: Path, dashboard: tuple[type[Dashboard], int]
) -> None:
    found = answered(part, tmp_path, dashboard, recorded("running"))
    assert (found.port, found.proxies) == (8100, {"172.17.0.2": "HEALTHY"})
    tiny = found.applications["tiny"]
    assert (tiny.status, tiny.ready, tiny.wanted, len(tiny.replicas)) == ("RUNNING", 1, 1, 2)
    (engine,) = tiny.engines
    assert (engine.part, engine.state, engine.address) == ("LLMServer:tiny", "RUNNING", "172.17.0.2")
    assert (engine.worker or "").startswith("7127b8f7")
    assert engine.log == f"/serve/replica_tiny_LLMServer_tiny_{engine.id}.log"
    assert engine.started is not None


def test_what_serve_was_told_is_known_by_the_digest_of_what_is_rendered(
    part: ModuleType, tmp_path: Path, dashboard: tuple[type[Dashboard], int]
) -> None:
    one = RayApplication(parse_deployment(MODEL, "model.yaml"), 1, "/weights/tiny", 0)
    for name in ("building", "starting", "running"):
        found = answered(part, tmp_path, dashboard, recorded(name))
        assert found.applications["tiny"].told == told_digest(application(one)), name
    other = RayApplication(parse_deployment(MODEL, "model.yaml"), 2, "/weights/tiny", 0)
    assert told_digest(application(other)) != told_digest(application(one))


def test_a_whole_number_is_the_same_whether_ray_calls_it_a_float(load: Load) -> None:
    api = load("module_parts/onprem_llm_ray_api")
    pairs = [({"a": [300, 0.5, True]}, {"a": [300.0, 0.5, True]}, True), ({"a": 1}, {"a": 1.5}, False)]
    for one, other, same in pairs:
        assert (told_digest(one) == told_digest(other)) is same
        assert [told_digest(one), told_digest(other)] == [api.told_digest(one), api.told_digest(other)]


def test_while_it_is_built_an_application_has_no_parts(
    part: ModuleType, tmp_path: Path, dashboard: tuple[type[Dashboard], int]
) -> None:
    tiny = answered(part, tmp_path, dashboard, recorded("building")).applications["tiny"]
    assert (tiny.status, tiny.parts, tiny.ready, tiny.wanted) == ("DEPLOYING", {}, 0, None)
    tiny = answered(part, tmp_path, dashboard, recorded("starting")).applications["tiny"]
    assert (tiny.status, [one.state for one in tiny.engines], tiny.ready, tiny.wanted) == (
        *("DEPLOYING", ["STARTING"], 0, 1),
    )


def test_a_head_that_was_told_nothing(part: ModuleType, tmp_path: Path, dashboard: tuple[type[Dashboard], int]) -> None:
    found = answered(part, tmp_path, dashboard, NOTHING)
    assert (found.applications, found.proxies, found.port) == ({}, {}, None)


def test_a_head_that_says_nothing_is_no_failed_look(
    part: ModuleType, tmp_path: Path, dashboard: tuple[type[Dashboard], int]
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Dashboard) as nobody:
        free = nobody.server_port
    found = looked(part, tmp_path, head(free))
    assert (
        found.applications,
        (found.error or "").startswith("the cluster's head does not answer: ConnectionRef"),
    ) == (*({}, True),)
    assert looked(part, tmp_path, head(free, state="exited")).error == "the cluster's head does not run"
    assert looked(part, tmp_path).error == "the cluster's head does not run"
    assert "does not name its ports" in (looked(part, tmp_path, head(free, labels={})).error or "")
    assert "Ray refuses the token of this host (403)" in (
        looked(part, tmp_path, head(dashboard[1]), key="old").error or ""
    )


def test_an_answer_of_another_ray_is_said_to_be_one(
    part: ModuleType, tmp_path: Path, dashboard: tuple[type[Dashboard], int]
) -> None:
    dashboard[0].answer = {"applications": {"tiny": {"state": "RUNNING"}}}
    found = looked(part, tmp_path, head(dashboard[1]))
    assert found.error == "the cluster's head answers otherwise than Ray 2.60: found no 'status', expected it"


def test_a_host_without_a_head_is_asked_nothing(part: ModuleType, tmp_path: Path) -> None:
    assert part.serve(str(tmp_path), []) is None
    assert parse_serve(None) is None


def test_names_that_both_sides_know(part: ModuleType) -> None:
    assert (part.HEAD, part.DASHBOARD) == (ray_node.HEAD_PROJECT, ray_node.DASHBOARD)
    assert server_name("org/tiny-1.5").startswith(ENGINE_PART)
