"""What top makes of what the engines and the hosts say."""

import ast
import http.server
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from onprem_llm import host_sampler, ssh_many
from onprem_llm.engine_metrics import NAMES, EngineMetrics, rate, read_metrics
from onprem_llm.errors import UnreachableError
from onprem_llm.main import cli
from onprem_llm.rendering import ray_node
from onprem_llm.ssh import Route
from onprem_llm.ssh_many import Lines, Piece, Streams
from onprem_llm.top_board import Board

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a } b"} 3.0
vllm:num_requests_running{engine="1",model_name="a } b"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="a"} 1.2e+03
vllm:generation_tokens_total{engine="0",model_name="a"} 100.0 1700000000000
vllm:inter_token_latency_seconds_bucket{le="+Inf"} 7
vllm:broken{} NaN
"""
LOCAL = Route("local", True, "local", None, None, None, ())
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="programs are started as root")


def test_vllms_metrics_are_added_up_over_its_engines() -> None:
    assert read_metrics(METRICS) == EngineMetrics(5, 4, 0.5, 1200.0, 100.0)


def test_engines_on_a_ray_node_are_read_from_it_and_those_that_ended_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """\
ray_serve_replica_processing_queries{application="tiny",deployment="LLMServer:t",otel="",replica="k3"} 1.0
ray_serve_replica_processing_queries{application="tiny",deployment="OpenAiIngress",replica="in1"} 1.0
ray_vllm_num_requests_running{NodeAddress="10.0.0.3",ReplicaId="k3",engine="0"} 2.0
ray_vllm_num_requests_waiting{NodeAddress="10.0.0.3",ReplicaId="k3",engine="0"} 4.0
ray_vllm_num_requests_waiting_by_reason{ReplicaId="k3",reason="capacity"} 9.0
ray_vllm_generation_tokens_total{ReplicaId="k3",engine="0"} 100.0
ray_vllm_generation_tokens_total{ReplicaId="old",engine="0"} 900.0
"""
    asked = []

    def fetch(replica: dict[str, Any], timeout: float) -> str:
        asked.append((replica["listen"], timeout))
        return text

    monkeypatch.setattr(host_sampler, "fetch", fetch)
    (one,) = host_sampler.on_node({"project": "ray-worker", "port": "20006"}, NAMES, 2.0)
    assert asked == [("127.0.0.1:20006", 2.0)]
    assert (one["project"], one["deployment"], one["replica"]) == ("tiny-k3", "tiny", "k3")
    assert read_metrics(one["metrics"]) == EngineMetrics(2, 4, None, None, 100.0)
    board = Board(["a"], 2.0, 0.0)
    line = json.dumps({"gpus": [], "replicas": [one], "error": None}).encode() + b"\n"
    board.take(Piece("a", line), 1.0)
    (row,) = board.rows(1.0)
    assert (row.project, row.running, row.waiting, row.problem) == ("tiny-k3", 2, 4, None)


def test_a_ray_node_that_does_not_answer_says_so_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(replica: dict[str, Any], timeout: float) -> str:
        raise TimeoutError("timed out")

    monkeypatch.setattr(host_sampler, "fetch", fetch)
    (one,) = host_sampler.on_node({"project": "ray-worker", "port": "20006"}, NAMES, 2.0)
    assert (one["project"], one["error"]) == ("ray-worker", "no answer within 2 s")


def test_which_port_of_a_ray_node_has_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_sampler.METRICS_PLACE == ray_node.METRICS
    monkeypatch.setattr(host_sampler, "call", lambda _: ("ray-worker\t20000-20999\nodd\t\n", ""))
    assert host_sampler.nodes() == [{"project": "ray-worker", "port": "20006"}]


def test_older_names_and_what_is_not_said() -> None:
    assert read_metrics('vllm:gpu_cache_usage_perc{model_name="a"} 0.1\n') == EngineMetrics(None, None, 0.1, None, None)


def test_a_counter_that_was_reset_has_no_rate() -> None:
    assert rate(100, 150, 2) == 25
    assert rate(100, 10, 2) is None
    assert rate(None, 10, 2) is None
    assert rate(1, 2, 0) is None


def sample(at: float, tokens: float, **more: Any) -> bytes:
    replica = {
        "state": "running", "project": "tiny-0", "deployment": "tiny", "replica": "0", "revision": "2",
        "gpus": "GPU-a,GPU-b", "at": at, "error": None, "metrics": f"vllm:generation_tokens_total {tokens}",
    }  # fmt: skip
    gpus = [
        {"uuid": "GPU-a", "index": 0, "use": 50, "memory_used": 1024, "memory_total": 2048},
        {"uuid": "GPU-b", "index": 3, "use": None, "memory_used": None, "memory_total": None},
    ]
    return json.dumps({"gpus": gpus, "replicas": [{**replica, **more}], "error": None}).encode() + b"\n"


def test_rates_are_between_the_hosts_own_times() -> None:
    board = Board(["a"], 2.0, 0.0)
    board.take(Piece("a", sample(10.0, 100)[:20]), 1.0)
    assert not board.rows(1.0)
    board.take(Piece("a", sample(10.0, 100)[20:]), 1.0)
    assert not board.complete
    board.take(Piece("a", sample(14.0, 300)), 9.0)
    (row,) = board.rows(9.0)
    assert board.complete
    assert (row.generation_rate, row.gpus, row.gpu_use) == (50.0, (0, 3), 50.0)
    assert (row.memory_used, row.memory_total, row.problem) == (1024, 2048, None)


def test_a_host_that_dies_says_so_and_hides_no_other() -> None:
    board = Board(["a", "b", "c"], 2.0, 0.0)
    for host in ("a", "b"):
        board.take(Piece(host, sample(1.0, 1)), 1.0)
    board.take(Piece("a", sample(99.0, 9)), 99.0)
    board.take(Piece("c", ended=True, error=UnreachableError("c: ssh could not connect", details="x\nno route")), 2.0)
    rows = {row.host: row for row in board.rows(100.0)}
    assert rows["a"].problem is None
    assert rows["b"].problem == "no answer for 99 s"
    assert rows["b"].running is None
    assert (rows["c"].project, rows["c"].problem) == (None, "ssh could not connect: no route")
    assert set(board.problems(100.0)) == {"b", "c"}
    assert board.ended_before(2.0) == ["c"]
    board.again("c", 100.0)
    assert board.ended_before(200.0) == []
    assert board.problems(101.0)["c"] == "ssh could not connect: no route"
    board.take(Piece("c", sample(1.0, 1)), 102.0)
    assert "c" not in board.problems(102.0)
    board.take(Piece("c", ended=True, error=UnreachableError("c: ssh could not connect")), 103.0)
    board.again("c", 108.0)
    assert [(row.project, row.problem) for row in board.rows(108.0) if row.host == "c"] == [
        ("tiny-0", "ssh could not connect")
    ]


def test_a_replica_that_hangs_or_is_down_says_so() -> None:
    board = Board(["a"], 2.0, 0.0)
    board.take(Piece("a", sample(1.0, 1, metrics=None, error="no answer within 2 s")), 1.0)
    assert board.rows(1.0)[0].problem == "no answer within 2 s"
    board.take(Piece("a", sample(1.0, 1, metrics=None, state="exited")), 1.0)
    assert board.rows(1.0)[0].problem == "exited"


def test_the_sampler_needs_nothing_of_ours() -> None:
    tree = ast.parse(Path(host_sampler.__file__).read_text(encoding="utf-8"))
    names = {name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in [node.module]}
    assert not [name for name in names if name and name.startswith("onprem_llm")]


@pytest.fixture
def engine() -> Iterator[http.server.HTTPServer]:
    """Serve METRICS on an address of ours."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def replica(port: int, address: str = host_sampler.EVERY[0], tls: str = "off") -> dict[str, str]:
    """Return what docker says of a replica; it is published on every interface."""
    return {"state": "running", "listen": f"{address}:{port}", "tls": tls}


def test_the_sampler_sends_the_wanted_lines_only(engine: http.server.HTTPServer) -> None:
    found = host_sampler.sample(replica(engine.server_port), ("vllm:num_requests_running",), 2.0)
    assert found["error"] is None
    assert [line.split("{")[0] for line in found["metrics"].splitlines()] == ["vllm:num_requests_running"] * 2


def test_an_engine_with_a_certificate_of_ours_is_asked_by_https(engine: http.server.HTTPServer, tmp_path: Path) -> None:
    names = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt"), "-subj", "/CN=engine.lab-1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *names],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    engine.socket = context.wrap_socket(engine.socket, server_side=True)
    found = host_sampler.sample(replica(engine.server_port, tls="on"), ("vllm:kv",), 2.0)
    assert found["error"] is None
    assert found["metrics"].count("vllm:kv_cache_usage_perc") == 2


def test_an_engine_that_hangs_costs_its_time_limit_once() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = time.monotonic()
        found = host_sampler.sample(replica(deaf.getsockname()[1], "127.0.0.1"), ("vllm:",), 0.3)
    assert found["error"] == "no answer within 0.3 s"
    assert time.monotonic() - began < 1


@as_root
def test_many_programs_stream_and_one_that_fails_touches_no_other() -> None:
    found: dict[str, bytes] = {"good": b"", "bad": b""}
    errors = {}
    with Streams() as streams:
        streams.start("good", LOCAL, ["sh", "-c", "cat; sleep 0.3; echo more"], stdin=b"order\n")
        streams.start("bad", LOCAL, ["sh", "-c", "echo half; echo why >&2; exit 3"])
        while streams.running:
            for piece in streams.read(5):
                found[piece.name] += piece.data
                if piece.ended:
                    errors[piece.name] = piece.error
    assert found == {"good": b"order\nmore\n", "bad": b"half\n"}
    assert errors["good"] is None
    assert errors["bad"] is not None
    assert errors["bad"].details == "why"


@as_root
def test_leaving_ends_all_programs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []
    began = 0.0
    with Streams() as streams:
        for name in ("a", "b", "c"):
            streams.start(name, LOCAL, ["sh", "-c", "echo $$; exec sleep 60"])
        while len(pids) < 3:
            pids += [int(piece.data) for piece in streams.read(5)]
        began = time.monotonic()
    assert time.monotonic() - began < ssh_many.END_SECONDS
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_lines_are_cut_whole() -> None:
    lines = Lines()
    assert lines.add(b"on") == []
    assert lines.add(b"e\ntwo\nthr") == [b"one", b"two"]
    assert lines.end() == [b"thr"]
    assert lines.end() == []


def test_a_pipe_gets_no_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.ini").write_text("a\n")
    from onprem_llm.errors import UsageError

    with pytest.raises(UsageError, match="draws on a terminal"):
        CliRunner().invoke(cli, ["top"], catch_exceptions=False, standalone_mode=False)
