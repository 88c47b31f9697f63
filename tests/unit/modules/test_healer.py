"""The healer against a docker socket that a test answers on."""

import importlib.util
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from .conftest import ROLES

NOW = 1_800_000_000.0


class Docker:
    """What the test's docker has and was asked to do."""

    def __init__(self) -> None:
        self.unhealthy = ["tiny-0-engine-1"]
        self.restarted: list[str] = []
        self.filters: dict[str, Any] = {}
        self.status = 204
        self.check = {"ExitCode": 1, "Output": "x" * 500 + "timed\nout"}


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Docker]:
    state = Docker()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/containers/json":
                state.filters = json.loads(parse_qs(url.query)["filters"][0])
                found: Any = [
                    {"Id": name, "Names": [f"/{name}"], "Labels": {"onprem-llm.project": name.rsplit("-", 2)[0]}}
                    for name in state.unhealthy
                ]
            else:
                found = {"State": {"Health": {"Log": [{"ExitCode": 1, "Output": "older"}, state.check]}}}
            self.answer(200, json.dumps(found).encode())

        def do_POST(self) -> None:
            state.restarted.append(self.path)
            self.answer(state.status, b"" if state.status == 204 else b'{"message": "no such device"}')

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if body:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if body:
                self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: Any) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "docker.sock"), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield state
        server.shutdown()


@pytest.fixture
def heal(docker: Docker, tmp_path: Path) -> ModuleType:
    loader = SourceFileLoader("heal", str(ROLES / "healer" / "files" / "heal"))
    spec = importlib.util.spec_from_loader("heal", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.__dict__.update(SOCKET=str(tmp_path / "docker.sock"), HOLDS=tmp_path / "hold")
    return module


def entries(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_an_unhealthy_container_is_restarted_and_written_down(heal: ModuleType, docker: Docker, tmp_path: Path) -> None:
    log = tmp_path / "log" / "heal.jsonl"
    heal.Healer(log).look(NOW)
    assert docker.restarted == ["/containers/tiny-0-engine-1/restart?t=3"]
    # Those that are starting, stopped or paused are not even listed.
    assert docker.filters == {"label": ["onprem-llm.project"], "health": ["unhealthy"], "status": ["running"]}
    (entry,) = entries(log)
    assert (entry["at"], entry["project"], entry["action"]) == ("2027-01-15T08:00:00Z", "tiny-0", "restarted")
    assert entry["reason"].endswith("xtimed out")
    assert len(entry["reason"]) < 220


@pytest.mark.parametrize(
    ("content", "age", "expected"),
    [("", 10, True), ("", 7200, False), (str(NOW + 5), 7200, True), (str(NOW - 5), 0, False), ("junk", 10, True)],
    ids=["an empty one", "an empty one that was left behind", "until then", "no longer", "what cannot be read"],
)
def test_holds(heal: ModuleType, docker: Docker, tmp_path: Path, content: str, age: int, expected: bool) -> None:
    (tmp_path / "hold").mkdir()
    hold = tmp_path / "hold" / "tiny-0"
    hold.write_text(content)
    os.utime(hold, (NOW - age, NOW - age))
    heal.Healer(tmp_path / "heal.jsonl").look(NOW)
    assert (docker.restarted == []) is expected


def test_one_that_waits_for_others_is_left_alone_until_it_is_ill_itself(
    heal: ModuleType, docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    healer, ill = heal.Healer(tmp_path / "heal.jsonl"), docker.check
    docker.check = {"ExitCode": 75, "Output": "rank 0 (10.0.0.1): waits for rank 1"}
    for second in range(3):
        healer.look(NOW + second)
    assert docker.restarted == []
    assert capsys.readouterr().out.count("waits for rank 1") == 1
    docker.check = ill
    healer.look(NOW + 3)
    assert len(docker.restarted) == 1


def test_it_gives_up_after_three_and_tries_again_later(heal: ModuleType, docker: Docker, tmp_path: Path) -> None:
    log = tmp_path / "heal.jsonl"
    healer = heal.Healer(log)
    for seconds in range(0, 600, 30):
        healer.look(NOW + seconds)
    assert len(docker.restarted) == 3
    assert [entry["action"] for entry in entries(log)] == ["restarted"] * 3 + ["gave_up"]
    healer.look(NOW + 90 + 899)
    assert len(docker.restarted) == 3
    healer.look(NOW + 90 + 901)
    assert len(docker.restarted) == 4


def test_restarts_spread_over_time_are_no_reason_to_give_up(heal: ModuleType, docker: Docker, tmp_path: Path) -> None:
    healer = heal.Healer(tmp_path / "heal.jsonl")
    for number in range(10):
        healer.look(NOW + number * 400)
    assert len(docker.restarted) == 10


def test_a_healer_that_was_restarted_remembers(heal: ModuleType, docker: Docker, tmp_path: Path) -> None:
    log = tmp_path / "heal.jsonl"
    for second in range(3):
        heal.Healer(log).look(NOW + second)
    log.open("a").write("cut off in the mid")
    heal.Healer(log).look(NOW + 4)
    assert len(docker.restarted) == 3


def test_one_container_does_not_hold_up_another(heal: ModuleType, docker: Docker, tmp_path: Path) -> None:
    docker.unhealthy = ["tiny-0-engine-1", "tiny-1-engine-1"]
    docker.status = 500
    log = tmp_path / "heal.jsonl"
    heal.Healer(log).look(NOW)
    assert len(docker.restarted) == 2
    assert [entry["action"] for entry in entries(log)] == ["failed", "failed"]
    assert "no such device" in entries(log)[0]["reason"]


def test_docker_away_is_said_once_and_survived(
    heal: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter(range(3))

    def sleep(_: float) -> None:
        if next(looks) == 2:
            raise SystemExit

    monkeypatch.setattr(heal.time, "sleep", sleep)
    monkeypatch.setattr(heal, "SOCKET", str(tmp_path / "none.sock"))
    with pytest.raises(SystemExit):
        heal.main()
    assert capsys.readouterr().out.count("docker does not answer") == 1


def test_the_log_is_rotated(heal: ModuleType, docker: Docker, tmp_path: Path) -> None:
    log = tmp_path / "heal.jsonl"
    log.write_text("x" * 1_000_001)
    heal.Healer(log).look(NOW)
    assert len(entries(log)) == 1
    assert (tmp_path / "heal.jsonl.1").stat().st_size == 1_000_001
