"""Module ray_nodes on a stand-in for Ray's dashboard, ray_image on recorded answers of docker, ray_firewall's rules."""

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onprem_llm.locking.ray_image import LEAST

from .conftest import Load

TOKEN = "t0ken"


class Dashboard(http.server.BaseHTTPRequestHandler):
    """What Ray 2.60's dashboard answers, as far as it is read: recorded from one, names shortened."""

    nodes: list[dict[str, Any]]
    applications: dict[str, Any]
    proxies: dict[str, Any]

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_response(401)
            self.end_headers()
            return
        answer: object = {"applications": type(self).applications, "proxies": type(self).proxies}
        if self.path.startswith("/api/v0/nodes"):
            answer = {"result": True, "data": {"result": {"result": type(self).nodes}}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def node(address: str, state: str = "ALIVE", *, head: bool = False) -> dict[str, Any]:
    resources = {"CPU": 2.0, f"node:{address}": 1.0, "memory": 1.0}
    return {
        "node_id": f"id-{address}",
        "node_ip": address,
        "state": state,
        "is_head_node": head,
        "resources_total": resources,
    }


def application(*addresses: str) -> dict[str, Any]:
    replicas = [{"node_ip": address, "state": "RUNNING"} for address in addresses]
    return {"status": "RUNNING", "message": "", "deployments": {"LLMServer:tiny": {"replicas": replicas}}}


@pytest.fixture
def nodes(load: Load, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("ray_cluster/ray_nodes")
    monkeypatch.setattr(module, "PAUSE", 0.02)
    return module


@pytest.fixture
def dashboard() -> Iterator[type[Dashboard]]:
    class One(Dashboard):
        """A dashboard of its own."""

    One.nodes, One.applications = [node("10.0.0.1", head=True), node("10.0.0.2")], {}
    One.proxies = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), One)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    One.port = server.server_address[1]  # type: ignore[attr-defined]
    yield One
    server.shutdown()


# What is waited for comes after this long, in seconds; what never comes is looked for twice at least.
LATER = 0.1


def soon(seconds: float = LATER) -> float:
    return time.monotonic() + seconds


def test_it_shows_nodes_and_applications(nodes: ModuleType, dashboard: Any) -> None:
    dashboard.applications = {"tiny": application("10.0.0.2")}
    head = nodes.Head(dashboard.port, TOKEN)
    assert head.nodes()[1] == {
        "id": "id-10.0.0.2",
        "address": "10.0.0.2",
        "state": "ALIVE",
        "head": False,
        "resources": {"CPU": 2.0, "memory": 1.0},
    }
    replica = {"deployment": "LLMServer:tiny", "address": "10.0.0.2", "state": "RUNNING"}
    assert head.applications() == {"tiny": {"status": "RUNNING", "message": "", "replicas": [replica]}}


def test_another_token_is_an_error_at_once(nodes: ModuleType, dashboard: Any) -> None:
    begun = time.monotonic()
    with pytest.raises(nodes.RayError, match=r"refuses the token of this host \(401\)"):
        nodes.wait_alive(nodes.Head(dashboard.port, "other"), ["10.0.0.2"], soon(30))
    assert time.monotonic() - begun < 5


def test_nodes_that_do_not_come_are_named(nodes: ModuleType, dashboard: Any) -> None:
    dashboard.nodes = [*dashboard.nodes, node("10.0.0.3", "DEAD")]
    head = nodes.Head(dashboard.port, TOKEN)
    assert nodes.wait_alive(head, ["10.0.0.2"], soon(30)) is False
    with pytest.raises(nodes.RayError, match=r"not in the cluster: 10\.0\.0\.3, 10\.0\.0\.4; expected"):
        nodes.wait_alive(head, ["10.0.0.2", "10.0.0.3", "10.0.0.4"], soon())


def test_a_node_that_comes_late_is_waited_for(nodes: ModuleType, dashboard: Any) -> None:
    threading.Timer(LATER, lambda: setattr(dashboard, "nodes", [*dashboard.nodes, node("10.0.0.3")])).start()
    nodes.wait_alive(nodes.Head(dashboard.port, TOKEN), ["10.0.0.3"], soon(30))


def test_a_dashboard_that_is_down_is_said(nodes: ModuleType) -> None:
    with pytest.raises(nodes.RayError, match=r"dashboard on 127\.0\.0\.1 does not answer"):
        nodes.wait_alive(nodes.Head(1, TOKEN), ["10.0.0.2"], soon(0.1))


def test_applications_that_ran_are_waited_for(nodes: ModuleType, dashboard: Any) -> None:
    """A head that was just started has none for a while, and no node that is missing."""
    head = nodes.Head(dashboard.port, TOKEN)
    threading.Timer(LATER, lambda: setattr(dashboard, "applications", {"tiny": application("10.0.0.2")})).start()
    begun = time.monotonic()
    nodes.wait_alive(head, ["10.0.0.2"], soon(30), ["tiny"])
    assert time.monotonic() - begun >= LATER
    dashboard.applications["tiny"] |= {"status": "UNHEALTHY", "message": "no room"}
    with pytest.raises(nodes.RayError, match="tiny is UNHEALTHY: no room; old is not there; expected RUNNING"):
        nodes.wait_alive(head, ["10.0.0.2"], soon(), ["tiny", "old"])


def drain(nodes: ModuleType, dashboard: Any, monkeypatch: pytest.MonkeyPatch, end: float) -> list[tuple[str, ...]]:
    asked: list[tuple[str, ...]] = []

    def docker(*arguments: str, limit: int) -> tuple[int, str]:
        asked.append(arguments)
        return 0, ""

    monkeypatch.setattr(nodes, "docker", docker)
    params = {"nodes": ["10.0.0.2"], "container": "ray-head-ray-1", "address": "10.0.0.1:20000"}
    assert nodes.drain(nodes.Head(dashboard.port, TOKEN), params, end) is True
    return asked


def test_a_drain_waits_for_the_last_replica(nodes: ModuleType, dashboard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dashboard.applications = {"tiny": application("10.0.0.2", "10.0.0.1")}
    threading.Timer(LATER, lambda: setattr(dashboard, "applications", {"tiny": application("10.0.0.1")})).start()
    begun = time.monotonic()
    (asked,) = drain(nodes, dashboard, monkeypatch, soon(30))
    assert time.monotonic() - begun >= LATER
    assert asked[:2] == ("exec", "ray-head-ray-1")
    assert asked[-2:] == ("10.0.0.1:20000", "id-10.0.0.2")
    # Shortly before one Serve stops replicas, other place or not.
    assert "deadline" not in " ".join(asked)
    assert TOKEN not in " ".join(asked)


def proxy(address: str, status: str) -> dict[str, str]:
    return {"node_ip": address, "status": status}


def test_a_drain_waits_for_the_proxy(nodes: ModuleType, dashboard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests come to it for 30 seconds after the last replica."""
    dashboard.proxies = {"a": proxy("10.0.0.1", "HEALTHY"), "b": proxy("10.0.0.2", "DRAINING")}
    with pytest.raises(nodes.RayError, match=r"proxy on 10\.0\.0\.2 still takes requests"):
        drain(nodes, dashboard, monkeypatch, soon())
    threading.Timer(LATER, lambda: dashboard.proxies.pop("b")).start()
    begun = time.monotonic()
    drain(nodes, dashboard, monkeypatch, soon(30))
    assert time.monotonic() - begun >= LATER


def test_replicas_without_another_place_are_named_and_go_on(
    nodes: ModuleType, dashboard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.applications = {"tiny": application("10.0.0.2")}
    with pytest.raises(nodes.RayError, match=r"tiny \(LLMServer:tiny\) on 10\.0\.0\.2\. They go on serving"):
        drain(nodes, dashboard, monkeypatch, soon())


def test_a_node_that_has_ended_is_drained(nodes: ModuleType, dashboard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drained node ends by itself; Serve may list its replicas for a moment longer."""
    dashboard.applications = {"tiny": application("10.0.0.2")}
    ended = [node("10.0.0.1", head=True), node("10.0.0.2", "DEAD")]
    threading.Timer(LATER, lambda: setattr(dashboard, "nodes", ended)).start()
    drain(nodes, dashboard, monkeypatch, soon(30))


IMAGES = {
    "whole": (0, '{"python": "3.11.2", "ray": "2.60.0", "vllm": "0.29.0"}'),
    "vllm-alone": (0, 'a warning\n{"python": "3.12.3", "ray": null, "vllm": "0.32.0"}'),
    "pair": (0, '{"python": "3.11.2", "ray": "2.60.0", "vllm": "0.29.0+cpu", "made_for": "0.29.0"}'),
    "no-pair": (0, '{"python": "3.11.2", "ray": "2.60.0", "vllm": "0.32.0", "made_for": "0.29.0"}'),
    "old": (0, '{"python": "3.11.2", "ray": "2.9.3", "vllm": "0.8.0"}'),
    "no-python": (127, 'exec: "python3": executable file not found in $PATH'),
}


def test_what_ray_is_made_for_is_read_out_of_its_own_record(load: Load, tmp_path: Path) -> None:
    """The program runs here, on records as pip writes them."""
    module = load("ray_cluster/ray_image")

    def asked(*requires: str) -> Any:
        record = tmp_path / "ray-2.60.0.dist-info"
        record.mkdir(exist_ok=True)
        lines = [
            "Metadata-Version: 2.1",
            "Name: ray",
            "Version: 2.60.0",
            *(f"Requires-Dist: {one}" for one in requires),
        ]
        (record / "METADATA").write_text("\n".join([*lines, "", ""]))
        done = subprocess.run(
            [sys.executable, "-S", "-c", module.PROGRAM],
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            check=True,
        )
        return json.loads(done.stdout)

    found = asked("click>=7.0", 'vllm-other==1.0; extra == "llm"', 'vllm[audio]==0.29.0; extra == "llm"')
    assert (found["ray"], found["vllm"], found["made_for"]) == ("2.60.0", None, "0.29.0")
    assert asked('vllm==0.29.0; extra == "other"')["made_for"] is None
    assert asked('vllm>=0.29.0; extra == "llm"')["made_for"] is None


def test_an_image_says_its_versions(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("ray_cluster/ray_image")
    asked = []

    def docker(*arguments: str, limit: int = 60) -> tuple[int, str]:
        if arguments[0] == "image":
            return 1, "No such image"
        asked.append(arguments)
        return IMAGES[arguments[arguments.index("python3") + 1]]

    monkeypatch.setattr(module, "docker", docker)
    assert module.spelled(module.versions("whole")) == "Python 3.11.2, Ray 2.60.0, vLLM 0.29.0"
    assert asked[0][:6] == ("run", "--rm", "--network", "none", "--pull", "never")
    with pytest.raises(
        module.ImageError, match=r"found no Ray in the image vllm-alone \(Python 3\.12\.3, Ray \(none\)"
    ):
        module.versions("vllm-alone")
    with pytest.raises(
        module.ImageError, match=r"found Ray 2\.9\.3 in the image old, expected 2\.60 or newer"
    ) as raised:
        module.versions("old")
    assert "Name another in onprem_llm_site.ray.image" in str(raised.value)
    assert module.asked("old")["ray"] == "2.9.3"
    assert module.release("2.60.0rc1") == module.LEAST < module.release("3.1")
    # What lock refuses is what cluster up refuses.
    assert LEAST.release == module.LEAST
    assert "made_for" not in module.versions("pair")
    with pytest.raises(module.ImageError, match=r"vLLM 0\.32\.0 in the image no-pair, expected vLLM 0\.29\.0, which"):
        module.versions("no-pair")
    with pytest.raises(module.ImageError, match="found no python3 in the image no-python, expected an image with Ray"):
        module.versions("no-python")


RULES = """# Written by onprem-llm: which addresses reach Ray on this host.
table inet onprem_llm_ray
delete table inet onprem_llm_ray
table inet onprem_llm_ray {
    chain ray {
        type filter hook prerouting priority -150; policy accept;
        iif "lo" accept
        ct direction reply accept
        ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport 20000-20999 accept
        ip6 saddr { fd00::1 } tcp dport 20000-20999 accept
        tcp dport 20000-20999 fib daddr type local drop
        tcp dport 8100 fib daddr type local drop
    }
}
"""


def test_rules_and_what_the_probe_reads_in_them(load: Load, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from onprem_llm.gateway_facts import parse_ray_firewall

    module = load("ray_firewall/ray_firewall")
    wanted = [
        {"ports": "20000-20999", "sources": ["10.0.0.2", "fd00::1", "10.0.0.1"]},
        {"ports": "8100", "sources": []},
    ]
    assert module.rules_text(wanted) == RULES
    import ansible.module_utils.onprem_llm_probe_serving as serving

    monkeypatch.setattr(serving, "RAY_FIREWALL", tmp_path / "ray.nft")
    assert serving.ray_firewall() is None
    (tmp_path / "ray.nft").write_text(RULES)
    monkeypatch.setattr(serving, "_is_loaded", lambda table: table == ("inet", "onprem_llm_ray"))
    state = parse_ray_firewall(serving.ray_firewall())
    assert state is not None
    assert state.active
    assert state.rules == {"20000-20999": ("10.0.0.1", "10.0.0.2", "fd00::1"), "8100": ()}


@pytest.mark.parametrize("ports", ["0", "70000", "10-9", "80; drop", "1-2-3"])
def test_ports_that_are_none_are_refused(load: Load, ports: str) -> None:
    module = load("ray_firewall/ray_firewall")
    with pytest.raises(module.FirewallError, match="expected one of 1 to 65535"):
        module.rules_text([{"ports": ports, "sources": []}])
