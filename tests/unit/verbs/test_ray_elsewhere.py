"""The verbs at a site whose Ray cluster somebody else runs, through the CLI where they are more than a plan."""

import http.server
import json
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import recorded_facts as made
from click.testing import CliRunner
from recorded_ray import ADDRESS, Hosts, elsewhere, model, site_elsewhere

from onprem_llm import clusters, look, ray_elsewhere
from onprem_llm.commands.logs import chosen
from onprem_llm.commands.status import see, tables
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError
from onprem_llm.look import View
from onprem_llm.main import cli
from onprem_llm.ray_logs import LogElsewhere
from onprem_llm.run_events import HostFailure, RunResult

INVENTORY = Path("/i/inventory.ini")


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Hosts with tiny on the cluster elsewhere, one replica, and somebody's hello there."""
    item = made.deployment(model(), image=None)
    hosts = made.applied(made.planned(elsewhere(), item, site_elsewhere()), elsewhere())
    replica = {"id": "k3", "state": "RUNNING", "address": "10.9.0.2", "worker": "w1", "started": 1.0}
    part = {"status": "HEALTHY", "message": "", "target": 1, "replicas": [replica], "dead": []}
    hosts["lab-1"]["serve"]["applications"]["tiny"]["parts"] = {"LLMServer:tiny": part}
    hosts["lab-1"]["serve"]["token_file"] = "/srv/onprem-llm/secrets/ray_token"
    for state in hosts.values():
        state["site"] = {"ray": {"address": ADDRESS, "weights": "/mnt/weights"}, "open_webui": {"enabled": False}}
    for name in ("look", "look_whole"):
        monkeypatch.setattr(clusters, name, lambda *_: View(made.current(hosts), (), made.SALT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.ini").write_text("lab-1\n")
    monkeypatch.setenv("ONPREM_LLM_INVENTORY", str(tmp_path / "inventory.ini"))
    return hosts


@pytest.mark.parametrize("words", [["up"], ["add", "lab-2"], ["drain", "lab-2"], ["down"]])
def test_cluster_changes_nothing_that_is_not_ours(facts: Hosts, words: list[str]) -> None:
    error = CliRunner().invoke(cli, ["cluster", *words, "--yes"]).exception
    assert isinstance(error, OnpremError)
    assert f"the Ray cluster at {ADDRESS} is run by somebody else" in error.message
    assert error.hint


def test_cluster_status_says_whose_is_what(facts: Hosts) -> None:
    done = CliRunner().invoke(cli, ["cluster", "status"])
    assert done.exit_code == 0, done.output
    assert f"{ADDRESS}, which somebody else runs: Ray 2.60.0" in done.output
    rows = {line.split()[0]: line for line in done.output.splitlines() if line.strip()}
    assert rows["10.9.0.1"].split()[1:] == ["head", "1", "0", "healthy"]
    assert rows["10.9.0.2"].split()[1:] == ["worker", "8", "2", "none"]
    assert rows["hello"].endswith("somebody else's")
    assert rows["tiny"].endswith("ours")
    facts["lab-1"]["serve"]["told"] = {}
    shown = json.loads(CliRunner().invoke(cli, ["cluster", "status", "--json"]).output)
    assert (shown["address"], shown["version"], shown["error"]) == (ADDRESS, "2.60.0", None)
    assert [(one["address"], one["proxy"]) for one in shown["nodes"]] == [("10.9.0.1", "HEALTHY"), ("10.9.0.2", None)]
    assert {name: app["ours"] for name, app in shown["applications"].items()} == {"hello": False, "tiny": True}
    facts["lab-1"]["serve"]["applications"]["tiny"]["told"] = "another"
    shown = json.loads(CliRunner().invoke(cli, ["cluster", "status", "--json"]).output)
    assert shown["applications"]["tiny"]["ours"] is False


def test_cluster_status_says_why_it_says_nothing(facts: Hosts) -> None:
    facts["lab-1"]["serve"] = {"error": "it refuses the token", "address": ADDRESS}
    done = CliRunner().invoke(cli, ["cluster", "status"])
    assert "Ray does not say how it is: lab-1: it refuses the token" in done.output
    assert json.loads(CliRunner().invoke(cli, ["cluster", "status", "--json"]).output)["applications"] is None


def test_status_shows_where_replicas_are_and_says_nothing_of_others(facts: Hosts) -> None:
    seen = see(View(made.current(facts), (), made.SALT), Connection(INVENTORY))
    assert [(row.project, row.host, row.state) for row in seen.replicas if row.deployment] == [
        ("tiny-k3", "10.9.0.2", "running")
    ]
    assert "hello" not in tables(seen)
    del facts["lab-1"]["serve"]["applications"]["tiny"]
    lost = " ".join(see(View(made.current(facts), (), made.SALT), Connection(INVENTORY)).notes)
    assert "tiny: Ray Serve does not have it" in lost
    assert "each PUT of Serve" in lost


class Logs(http.server.BaseHTTPRequestHandler):
    """Ray's log API, as Ray 2.60 answered."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        asked = {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
        if self.headers.get("Authorization") != "Bearer t0ken":
            self._say(403, "no")
        elif path == "/api/v0/logs":
            found = ["worker-w1-1.err", "worker-w1-1.out"] if asked["glob"] == "worker-w1*" else []
            self._say(200, json.dumps({"data": {"result": {"worker": found}}}))
        else:
            self._say(200, f"{path.rpartition('/')[2]} {asked['filename']} {asked['node_ip']} {asked['lines']}\n")

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def dashboard() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Logs) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_logs_come_by_way_of_the_gateway_host(facts: Hosts, dashboard: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    facts["lab-1"]["serve"] |= {"address": dashboard, "token_file": str(token)}
    view = View(made.current(facts), (), made.SALT)
    ((label, log),) = chosen(view, "tiny", None).items()
    assert isinstance(log, LogElsewhere)
    assert (label, log.host.name) == ("tiny-k3", "lab-1")

    def said(tail: int, *, follow: bool = False) -> tuple[int, str, str]:
        argv = log.argv(follow, tail)
        assert "t0ken" not in argv
        done = subprocess.run([sys.executable, *argv[1:]], capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr

    lines = "file worker-w1-1.err 10.9.0.2 7\nfile worker-w1-1.out 10.9.0.2 7\n"
    assert said(7) == (0, lines, "")
    assert said(0) == (0, "", "")
    code, shown, _ = said(3, follow=True)
    assert code == 0
    assert set(shown.splitlines()) == {"stream worker-w1-1.err 10.9.0.2 3", "stream worker-w1-1.out 10.9.0.2 3"}
    token.write_text("other\n")
    code, _, error = said(7)
    assert code == 1
    assert "it refuses the token of this host (403)" in error
    assert "Traceback" not in error
    token.write_text("t0ken\n# t0ken\n")
    code, _, error = said(7)
    assert (code, "t0ken" in error) == (1, False)
    assert f"{token}: expected the Ray cluster's token, one line" in error


def test_a_look_asks_with_the_token_and_says_why_it_could_not(
    facts: Hosts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs: list[dict[str, Any]] = []
    said = facts["lab-1"].pop("serve")

    def probe(*_: object, **__: object) -> RunResult:
        return RunResult(tuple(facts), {name: {"probe": state} for name, state in facts.items()}, {}, ())

    def asked(playbook: str, _: Connection, **more: Any) -> RunResult:
        runs.append({"playbook": playbook, **more})
        return RunResult(("lab-1",), {"lab-1": {"serve": said}}, {}, ())

    monkeypatch.setattr(look, "run", probe)
    monkeypatch.setattr(ray_elsewhere, "run", asked)
    state = look.look(Connection(INVENTORY)).current.host("lab-1")
    assert state is not None
    assert state.serve is not None
    assert state.serve.applications["tiny"].status == "RUNNING"
    assert (runs[0]["playbook"], runs[0]["hosts"], runs[0]["secrets"]) == ("ray_look.yml", ["lab-1"], None)

    def why(path: str | None) -> str:
        ray = {"address": ADDRESS, "weights": "/w", **({"token_file": path} if path else {})}
        for one in facts.values():
            one["site"] = {"ray": ray}
        found = look.look(Connection(INVENTORY)).current.host("lab-1")
        assert found is not None
        assert found.serve is not None
        return found.serve.error or ""

    (tmp_path / "token").write_text("t0ken\n")
    assert why(str(tmp_path / "token")) == ""
    assert runs[-1]["secrets"] == {"onprem_llm_secrets": {"ray-serve": {"token": "t0ken"}}}
    assert f"{tmp_path / 'none'} cannot be read on this machine" in why(str(tmp_path / "none"))
    (tmp_path / "token").write_text("\n")
    assert "is empty, expected the Ray cluster's token" in why(str(tmp_path / "token"))
    for text in ("secret-one\n# comment\n", "secret one", "sécret"):
        (tmp_path / "token").write_text(text)
        asked_before = len(runs)
        said_of_it = why(str(tmp_path / "token"))
        assert f"{tmp_path / 'token'} has more than a token: expected one line of printable ASCII" in said_of_it
        assert "cret" not in said_of_it
        assert len(runs) == asked_before
    failure = HostFailure("lab-1", "Look at the cluster", "no route", unreachable=True)
    monkeypatch.setattr(ray_elsewhere, "run", lambda *_, **__: RunResult(("lab-1",), {}, {}, (failure,)))
    assert "no route" in why(None)


def test_settings_that_are_wrong_are_said_by_whoever_reads_them(facts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    for state in facts.values():
        state["site"] = {"ray": {"address": "x/y"}}
        state.pop("serve", None)
    answer = RunResult(tuple(facts), {name: {"probe": state} for name, state in facts.items()}, {}, ())
    monkeypatch.setattr(look, "run", lambda *_, **__: answer)
    found = look.look(Connection(INVENTORY)).current.gateway
    assert found is not None
    assert found.serve is None
