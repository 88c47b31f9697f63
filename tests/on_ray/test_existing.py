"""Deployments on a Ray cluster that is not ours: the real Ray and vLLM, with somebody else's application on it.

The cluster is a container beside the rehearsal host, in no inventory. It sees the host's weights folder as by NFS, and
has a token. Whatever is done with ours, the other application answers.
"""

import http.client
import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.e2e.conftest import Lab, Site
from tests.load.rehearsal import SETTINGS, Rehearsal, until
from tests.load.served import Served
from tests.on_ray.conftest import IMAGE, bootstrapped, made_site
from tests.on_ray.test_ray import BOUNDS, MODEL, ONE, SLOW, OnRay

TOKEN = secrets.token_urlsafe(24)
NAME = "ray-of-others"
THEIRS = """\
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Hello:
    def __call__(self, request):
        return "theirs"


app = Hello.bind()
"""
HELLO = {"name": "hello", "route_prefix": "/hello", "import_path": "theirs:app"}
RAY = "  ray: {{address: {address}, token_file: {token}, weights: /mnt/onprem-llm/weights, serve_port: 8000}}\n"


class Others:
    """The cluster, and who runs it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        """Start it in the lab's network; its folder has the program of its own application."""
        program = folder / "theirs"
        program.mkdir()
        (program / "theirs.py").write_text(THEIRS)
        subprocess.run(["docker", "rm", "--force", "--volumes", NAME], check=True, capture_output=True)
        environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": "/theirs"}
        started = subprocess.run(
            ["docker", "run", "--detach", "--name", NAME, "--network", f"onprem-llm-lab-{lab.name}", "--shm-size", "1g",
             *(word for name in environment for word in ("--env", name)),
             "--volume", f"{program}:/theirs:ro", "--volume", f"onprem-llm-lab-{lab.hosts[0]}-srv:/mnt:ro", IMAGE,
             "ray", "start", "--head", "--block", "--disable-usage-stats", "--dashboard-host", "0.0.0.0",  # noqa: S104
             "--num-cpus", "4"],
            env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert started.returncode == 0, started.stderr
        shown = ["docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", NAME]
        self.address = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip()

    def ask(self, method: str, body: object = None) -> dict:
        """Ask Serve's API, or tell it."""
        connection = http.client.HTTPConnection(self.address, 8265, timeout=60)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request(method, "/api/serve/applications/", json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status == 200, text
        return json.loads(text) if text.strip() else {}

    def serves(self) -> bool:
        """Tell whether it answers, and serves its own application."""
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET").get("applications", {}).get("hello", {}).get("status") == "RUNNING"
        return False

    def answers(self) -> bool:
        """Ask its own application."""
        connection = http.client.HTTPConnection(self.address, 8000, timeout=30)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/hello")
            answer = connection.getresponse()
            return (answer.status, answer.read()) == (200, b"theirs")
        return False

    def born(self) -> list[str]:
        """Name the replicas of its own application: others, once Serve has made it anew."""
        parts = self.ask("GET")["applications"]["hello"]["deployments"].values()
        return [one["replica_id"] for part in parts for one in part["replicas"]]

    @contextmanager
    def all_the_while(self) -> Iterator[None]:
        """Ask its own application twice a second; each answer must be good."""
        ended, answers = threading.Event(), []

        def go_on() -> None:
            while not ended.wait(0.5):
                answers.append(self.answers())

        before = self.born()
        asking = threading.Thread(target=go_on)
        asking.start()
        try:
            yield
        finally:
            ended.set()
            asking.join()
        assert len(answers) > 5
        assert all(answers), f"{answers.count(False)} of {len(answers)} requests to the other application failed"
        assert self.born() == before
        print(f"the other application: {len(answers)} answers, 0 failed")


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """The site: one host, prepared; its settings name no cluster yet."""
    with made_site(tmp_path_factory.mktemp("existing"), "ray-existing", 1) as site:
        try:
            yield bootstrapped(site)
        finally:
            subprocess.run(["docker", "rm", "--force", "--volumes", NAME], check=True, capture_output=True)


@pytest.fixture(scope="module")
def others(rehearsal: Rehearsal) -> Others:
    """The cluster with its own application, which is asked for; the site names it."""
    site = rehearsal.site
    rehearsal.lab.exec_root(rehearsal.hosts[0], "mkdir", "-p", "/srv/onprem-llm/weights")
    found = Others(rehearsal.lab, site.folder)
    (site.folder / "token").write_text(f"{TOKEN}\n")
    settings(site, found.address)

    def told() -> bool:
        with suppress(OSError, http.client.HTTPException, AssertionError):
            found.ask("PUT", {"http_options": {"host": "0.0.0.0", "port": 8000}, "applications": [HELLO]})  # noqa: S104
            return True
        return False

    until(told, SLOW, "Ray's dashboard answers")
    until(found.serves, SLOW, "the other application runs")
    return found


@pytest.fixture(scope="module")
def tiny(rehearsal: Rehearsal, others: Others) -> Iterator[OnRay]:
    """A model of ours on it."""
    one = Served(rehearsal, "tiny", MODEL.replace("NAME", "tiny"))
    began = time.monotonic()
    with others.all_the_while():
        one.deploy()
    print(f"deploy {time.monotonic() - began:.0f} s")
    one.key = rehearsal.key(one.user)
    yield OnRay(one)
    rehearsal.down(one.name)


def settings(site: Site, address: str, file: str = "token") -> None:
    """Write where the cluster is."""
    text = RAY.format(address=json.dumps(address), token=site.folder / file)
    (site.folder / "group_vars" / "all.yml").write_text(SETTINGS + text)


def refused(site: Site, *words: str) -> str:
    """Run what must be refused, with an exit code of its own; return what it said."""
    done = site.run(*words, code=None)
    assert done.returncode not in (0, 1), done.stderr
    return done.stderr


def test_what_is_refused_before_anything_starts(rehearsal: Rehearsal, others: Others) -> None:
    site = rehearsal.site
    before = others.ask("GET")["applications"]
    site.write("tiny.yaml", MODEL.replace("NAME", "tiny"))
    (site.folder / "wrong").write_text("another\n")
    settings(site, others.address, "wrong")
    said = refused(site, "deploy", "tiny.yaml", "--yes")
    assert f"http://{others.address}:8265 refuses the token that it was given (403)" in said
    assert "token_file" in said
    settings(site, others.address, "not-there")
    assert "not-there cannot be read on this machine" in refused(site, "deploy", "tiny.yaml", "--yes")
    settings(site, f"{others.address}:9")
    assert f"Ray's dashboard on {others.address}:9 does not answer" in refused(site, "deploy", "tiny.yaml", "--yes")
    settings(site, others.address)
    site.write("hello.yaml", MODEL.replace("NAME", "hello"))
    assert "an application hello at /hello that is not ours" in refused(site, "deploy", "hello.yaml", "--yes")
    site.write("large.yaml", MODEL.replace("NAME", "large").replace(ONE, "replicas: 5\n"))
    assert "no room for 5 replicas of 1 CPU each" in refused(site, "deploy", "large.yaml", "--yes")
    for verb in (["up"], ["add", rehearsal.hosts[0]], ["drain", rehearsal.hosts[0]], ["down"]):
        assert "is run by somebody else" in refused(site, "cluster", *verb, "--yes")
    assert others.ask("GET")["applications"] == before


def test_an_old_ray_is_refused(rehearsal: Rehearsal, others: Others) -> None:
    """Nobody has one here: something that says of itself what an old one says."""
    site = rehearsal.site
    program = (
        "import http.server, json\n"
        "class Old(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        said = {'/api/version': {'ray_version': '2.54.0'}, '/api/serve/applications/': {'applications': {}}}\n"
        "        self.send_response(200); self.end_headers()\n"
        "        nodes = {'data': {'result': {'result': []}}}\n"
        "        self.wfile.write(json.dumps(said.get(self.path, nodes)).encode())\n"
        "http.server.HTTPServer(('', 9265), Old).serve_forever()\n"
    )
    subprocess.run(["docker", "exec", "--detach", NAME, "python3", "-c", program], check=True, timeout=60)
    settings(site, f"{others.address}:9265")
    try:
        until(lambda: "2.54.0" in refused(site, "plan", "tiny.yaml"), 60, "an old Ray is refused")
        assert "expected 2.60 or newer" in refused(site, "plan", "tiny.yaml")
    finally:
        settings(site, others.address)


def test_a_chat_through_the_gateway(tiny: OnRay, others: Others) -> None:
    site = tiny.served.site
    assert tiny.says()
    assert site.run("chat", "hello", "--max-tokens", "4").stdout.strip()
    line = tiny.deployment()
    assert (line["ready"], line["wanted"]) == (1, 1)
    ((name, host),) = tiny.becomes(1).items()
    assert host == others.address
    shown = site.run("logs", name).stdout
    assert "EngineCore" in shown
    assert len(site.run("logs", name, "--tail", "1").stdout.splitlines()) < len(shown.splitlines())
    cluster = site.json("cluster", "status")
    assert {name: app["ours"] for name, app in cluster["applications"].items()} == {"hello": False, "tiny": True}
    assert [(node["address"], node["proxy"]) for node in cluster["nodes"]] == [(others.address, "HEALTHY")]
    assert site.json("history", "tiny")["revisions"][-1]["revision"] == line["revision"]


def test_a_second_time_nothing_changes(tiny: OnRay) -> None:
    before = tiny.replicas()
    assert tiny.served.site.json("plan", tiny.served.file)["noop"] is True
    tiny.served.deploy()
    assert tiny.replicas() == before


def test_the_token_is_on_the_gateway_host_for_root_alone_and_nowhere_else(tiny: OnRay) -> None:
    rehearsal = tiny.served.rehearsal
    there = ("grep", "-rl", TOKEN, "/srv/onprem-llm", "/var/lib/onprem-llm", "/etc", "/var/log", "/root", "/home")
    assert rehearsal.lab.exec_root(rehearsal.hosts[0], *there, check=False).split() == [
        "/srv/onprem-llm/secrets/ray_token"
    ]
    mode = rehearsal.lab.exec_root(rehearsal.hosts[0], "stat", "-c", "%a %U", "/srv/onprem-llm/secrets/ray_token")
    assert mode.strip() == "600 root"
    shown = tiny.served.site.run("plan", tiny.served.file, "--out", "planned", "--json").stdout
    assert TOKEN not in shown
    texts = [
        one.read_text(errors="replace") for one in (tiny.served.site.folder / "planned").rglob("*") if one.is_file()
    ]
    assert texts
    assert not any(TOKEN in text for text in texts)


def test_other_bounds_replace_neither_our_replica_nor_theirs(tiny: OnRay, others: Others) -> None:
    before = tiny.replicas()
    with others.all_the_while():
        tiny.served.deploy((ONE, BOUNDS))
    assert tiny.replicas() == before
    assert tiny.deployment()["bounds"] == "1-2"


def test_an_update_that_does_not_come_to_serve_is_taken_back(tiny: OnRay, others: Others) -> None:
    before, text = tiny.replicas(), tiny.says()
    with others.all_the_while():
        done = tiny.served.deploy((ONE, BOUNDS), ("dtype: float32", "dtype: nonsense"), code=None)
    assert done.returncode != 0
    assert "tiny does not start on Ray" in done.stdout + done.stderr
    assert (tiny.replicas(), tiny.says()) == (before, text)


def test_who_leaves_ours_out_of_a_put_takes_it_away_and_the_next_deploy_brings_it_back(
    tiny: OnRay, others: Others
) -> None:
    site = tiny.served.site
    others.ask("PUT", {"applications": [HELLO]})
    until(lambda: "tiny" not in others.ask("GET")["applications"], SLOW, "Serve has dropped tiny")
    assert "tiny: Ray Serve does not have it" in site.run("status").stderr
    with others.all_the_while():
        tiny.served.deploy((ONE, BOUNDS))
    assert tiny.says()


def test_down_takes_ours_and_leaves_theirs(tiny: OnRay, others: Others) -> None:
    site = tiny.served.site
    with others.all_the_while():
        site.run("down", "tiny", "--yes")
    assert set(others.ask("GET")["applications"]) == {"hello"}
    assert site.json("status")["deployments"] == []
    with others.all_the_while():
        tiny.served.deploy()
    assert tiny.says()
