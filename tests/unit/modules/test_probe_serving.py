"""The parts of the probe about gateway, firewall, certificates."""

import json
import socketserver
import subprocess
import threading
from pathlib import Path
from types import ModuleType

import pytest

from onprem_llm.gateway_facts import parse_certificates, parse_firewall, parse_gateway

from .conftest import Load

# As HAProxy 3.0 answers `show servers state; show stat -1 4 -1`; columns that nobody reads are left out of the second.
ANSWER = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl \
srv_check_port srv_check_addr srv_agent_addr srv_agent_port
4 tiny 1 tiny-0 10.0.0.2 2 0 1 1 15 6 3 4 6 0 0 0 - 8000 - 0 0 - - 0
4 tiny 2 tiny-1 fd00::3 0 0 1 1 15 6 3 0 6 0 0 0 - 8001 - 0 0 - - 0
4 tiny 3 tiny-2 10.0.0.4 2 8 1 1 15 6 3 4 6 0 0 0 - 8002 - 0 0 - - 0
4 tiny 4 tiny-3 10.0.0.5 2 1 1 1 15 6 3 4 6 0 0 0 - 8003 - 0 0 - - 0

# pxname,svname,qcur,qmax,scur,smax,status,check_status,check_code,last_chk,
tiny,tiny-0,0,0,2,3,UP,L7OK,200,OK,
tiny,tiny-1,0,0,0,0,DOWN,* L4CON,,Connection refused,
tiny,tiny-2,0,0,1,1,DRAIN,L7OK,200,OK,
tiny,tiny-3,0,0,0,1,MAINT,,,,

"""


@pytest.fixture
def serving(load: Load) -> ModuleType:
    return load("host_probe/onprem_llm_probe_serving")


def gateway_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "gateway"
    (folder / "run").mkdir(parents=True)
    (folder / "conf").mkdir()
    (folder / "compose.yaml").write_text("name: gateway")
    return folder


def test_servers_of_the_gateway(serving: ModuleType, tmp_path: Path) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            assert self.rfile.readline() == b"show servers state; show stat -1 4 -1\n"
            self.wfile.write(ANSWER.encode())

    folder = gateway_folder(tmp_path)
    with socketserver.UnixStreamServer(str(folder / "run" / "admin.sock"), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        found = serving.gateway(str(tmp_path))
        thread.join()
    state = parse_gateway(found)
    assert state is not None
    assert (state.running, state.error) == (True, None)
    first, down, drained, stopped = (state.servers[f"tiny/tiny-{n}"] for n in range(4))
    assert (first.address, first.port, first.admin, first.up) == ("10.0.0.2", 8000, "ready", True)
    assert (first.check, first.sessions) == ("L7OK/200", 2)
    assert (down.address, down.admin, down.up, down.check) == ("fd00::3", "ready", False, "L4CON")
    assert (drained.admin, drained.up, drained.sessions) == ("drain", True, 1)
    assert (stopped.admin, stopped.check) == ("maint", None)


def test_a_gateway_that_is_down_is_said_to_be(serving: ModuleType, tmp_path: Path) -> None:
    gateway_folder(tmp_path)
    found = serving.gateway(str(tmp_path))
    assert not found["running"]
    assert "does not answer" in found["error"]
    assert serving.gateway(str(tmp_path / "none")) is None


def test_the_other_gateway_hosts(serving: ModuleType, tmp_path: Path) -> None:
    folder = gateway_folder(tmp_path)
    assert parse_gateway(serving.gateway(str(tmp_path))).peers == ()
    (folder / "conf" / "peers.json").write_text('{"listen": "10.0.0.2", "others": ["10.0.0.3"], "port": 8406}')
    assert parse_gateway(serving.gateway(str(tmp_path))).peers == ("10.0.0.3",)
    (folder / "conf" / "peers.json").write_text("[")
    assert parse_gateway(serving.gateway(str(tmp_path))).peers == ()


def test_files_that_the_process_has_not_read(serving: ModuleType, tmp_path: Path) -> None:
    folder = gateway_folder(tmp_path)
    assert serving._pending(folder)
    (folder / "conf" / "haproxy.cfg").write_text("global")
    (folder / ".rendered.json").write_text('["compose.yaml", "conf/haproxy.cfg"]')
    loaded = {"conf/haproxy.cfg": serving._sha256(folder / "conf" / "haproxy.cfg")}
    (folder / "run" / "loaded.json").write_text(json.dumps(loaded))
    assert not serving._pending(folder)
    (folder / "conf" / "haproxy.cfg").write_text("global changed")
    assert serving._pending(folder)


def test_firewall_as_its_role_writes_it(
    serving: ModuleType, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = load("engine_firewall/engine_firewall").rules_text([8000, 8001], ["10.0.0.1", "fd00::1"])
    monkeypatch.setattr(serving, "FIREWALL", tmp_path / "firewall.nft")
    assert serving.firewall() is None
    (tmp_path / "firewall.nft").write_text(rules)
    monkeypatch.setattr(serving.subprocess, "check_output", lambda *_, **__: b"fib daddr type local drop")
    monkeypatch.setattr(serving.shutil, "which", lambda *_, **__: "nft")
    state = parse_firewall(serving.firewall())
    assert state is not None
    assert (state.ports, state.sources, state.active) == ((8000, 8001), ("10.0.0.1", "fd00::1"), True)
    monkeypatch.setattr(serving.shutil, "which", lambda *_, **__: None)
    assert not serving.firewall()["active"]


def test_firewall_with_gangs_as_its_role_writes_it(
    serving: ModuleType, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gangs = [{"ports": [7600, 7601], "sources": ["10.0.0.4", "fd00::5"]}, {"ports": [7602], "sources": ["10.0.0.6"]}]
    rules = load("engine_firewall/engine_firewall").rules_text([8000], ["10.0.0.1"], gangs)
    monkeypatch.setattr(serving, "FIREWALL", tmp_path / "firewall.nft")
    (tmp_path / "firewall.nft").write_text(rules)
    state = parse_firewall(serving.firewall())
    assert state is not None
    assert (state.ports, state.sources) == ((8000,), ("10.0.0.1",))
    assert [(wall.ports, wall.sources) for wall in state.gangs] == [
        ((7600, 7601), ("10.0.0.4", "fd00::5")),
        ((7602,), ("10.0.0.6",)),
    ]


def test_certificates(serving: ModuleType, tmp_path: Path) -> None:
    book, secrets = tmp_path / "book", tmp_path / "gateway" / "secrets"
    secrets.mkdir(parents=True)
    assert serving.certificates(str(tmp_path), str(book)) == {}
    path = secrets / "gateway.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "20",
         "-subj", "/CN=x", "-addext", "subjectAltName=DNS:Lab-1,IP:10.0.0.1,IP:fd00:1::b",
         "-keyout", tmp_path / "k", "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + (tmp_path / "k").read_text())
    found = parse_certificates(serving.certificates(str(tmp_path), str(book)))
    # As addresses are spelled everywhere else: another spelling is another name, and a new certificate each time.
    assert found["gateway"].names == ("10.0.0.1", "fd00:1::b", "lab-1")
    now = int(path.stat().st_mtime)
    assert abs(found["gateway"].not_after - (now + 20 * 86400)) < 60
    assert found["gateway"].written == now
    assert not found["gateway"].ends_soon  # nobody knows: this host did not say what time it is
    (soon,) = parse_certificates(serving.certificates(str(tmp_path), str(book)), now).values()
    assert soon.ends_soon


def test_keys_of_clients_and_of_engines_are_told_apart(serving: ModuleType) -> None:
    keys = {"tiny": "a", "client-open-webui": "b", "engine.key": "c", "engine.crt": "d", ".next-key": "e"}
    assert serving.split_keys(keys) == ({"tiny": "a"}, {"open-webui": "b"})
