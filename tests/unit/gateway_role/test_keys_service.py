"""The service by which gateway hosts keep the client keys the same; over real sockets."""

import http.client
import importlib.machinery
import importlib.util
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from .conftest import installed, shared

SHA = {name: f"{number:064x}" for number, name in enumerate(("a", "b", "c"), 1)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The program as it lies on a host, beside what it shares."""
    folder = tmp_path_factory.mktemp("lib")
    installed("onprem-llm-keys.service", folder)
    path = folder / "onprem-llm-keys"
    loader = importlib.machinery.SourceFileLoader("onprem_llm_keys", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    found = importlib.util.module_from_spec(spec)
    loader.exec_module(found)
    return found


def key(sha: str, created: int = 1, revoked: int | None = None) -> dict[str, Any]:
    return {"sha256": SHA[sha], "models": None, "rate": None, "expires": None, "created": created,
            "created_by": "me", "revoked": revoked}  # fmt: skip


def record(serial: int = 1, **keys: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "serial": serial, "keys": keys}


@pytest.mark.parametrize(
    ("mine", "theirs", "both"),
    [
        ({}, {"x": key("a")}, {"x": key("a")}),
        ({"x": key("a")}, {"x": key("a", revoked=5)}, {"x": key("a", revoked=5)}),
        ({"x": key("a", revoked=7)}, {"x": key("a", revoked=5)}, {"x": key("a", revoked=5)}),
        ({"x": key("a", 1, revoked=5)}, {"x": key("b", 9)}, {"x": key("b", 9)}),
        ({"x": key("a", 1)}, {"x": key("b", 9, revoked=10)}, {"x": key("b", 9, revoked=10)}),
        ({"x": key("a"), "y": key("b")}, {"x": key("a"), "z": key("c")}, {"x": key("a"), "y": key("b"), "z": key("c")}),
        ({"x": key("a", 1)}, {"x": key("a", 2)}, {"x": key("a", 2)}),
    ],
    ids=["new", "revoked there", "revoked twice", "given anew", "given anew and revoked", "both made one", "clocks"],
)
def test_both_come_to_the_same_whoever_begins(
    mine: dict[str, Any], theirs: dict[str, Any], both: dict[str, Any], service: ModuleType
) -> None:
    for one, other in ((mine, theirs), (theirs, mine)):
        found = service.store.merged(record(3, **one), record(2, **other))
        assert (found["keys"], found["serial"]) == (both, 3)
    assert service.store.merged(record(1, **both), record(1, **theirs))["keys"] == both


class Host:
    """A gateway host: folders, and the service's parts."""

    def __init__(self, service: ModuleType, folder: Path, secret: str, keys: dict[str, Any] | None) -> None:
        self.project, self.folder = folder / "gateway", folder / "keys"
        (self.project / "conf").mkdir(parents=True)
        (folder / "secret").write_text(f"{secret}\n")
        self.keys = service.Keys(self.project, self.folder, folder / "secret")
        if keys is not None:
            self.folder.mkdir(mode=0o700)
            service.store.write(self.folder, record(1, **keys))

    def peer(self, port: int) -> None:
        peers = {"listen": "127.0.0.1", "port": port, "others": ["127.0.0.1"]}
        (self.project / "conf" / "peers.json").write_text(json.dumps(peers))

    @property
    def map(self) -> str:
        return (self.folder / "keys.map").read_text()


def serving(service: ModuleType, keys: Any, others: tuple[str, ...] = ("127.0.0.1",)) -> Any:
    """Let a host answer on a port of its own."""
    (where, server) = service.server.served({"listen": "127.0.0.1", "port": 0, "others": others}, None)
    assert where == ("127.0.0.1", 0)
    server.RequestHandlerClass = type("Handler", (service.server.Handler,), {"keys": keys})
    return server


@pytest.fixture
def other(service: ModuleType, tmp_path: Path) -> Iterator[tuple[Host, int]]:
    host = Host(service, tmp_path / "other", "site", {"alice": key("a", revoked=5), "bob": key("b")})
    server = serving(service, host.keys)
    yield host, server.server_port
    server.server_close_quietly()


def test_a_host_that_was_away_learns_what_it_missed(
    service: ModuleType, other: tuple[Host, int], tmp_path: Path
) -> None:
    back = Host(service, tmp_path / "back", "site", {"alice": key("a"), "carol": key("c")})
    back.peer(other[1])
    assert back.keys.sync() == {}
    assert back.map == f"{SHA['b']} bob\n{SHA['c']} carol\n"
    # What only this host knew stays, and the same question again changes nothing.
    before = (back.folder / "keys.json").stat().st_mtime_ns
    assert back.keys.sync() == {}
    assert (back.folder / "keys.json").stat().st_mtime_ns == before


def test_a_new_gateway_host_has_all_keys_in_a_folder_of_its_own(
    service: ModuleType, other: tuple[Host, int], tmp_path: Path
) -> None:
    new = Host(service, tmp_path / "new", "site", None)
    new.peer(other[1])
    assert new.keys.sync() == {}
    assert new.map == f"{SHA['b']} bob\n"
    assert new.folder.stat().st_mode & 0o777 == 0o700
    assert shared("onprem_llm_client_keys").read(new.folder)["keys"].keys() == {"alice", "bob"}


def test_who_does_not_know_the_secret_gets_nothing_and_is_not_believed(
    service: ModuleType, other: tuple[Host, int], tmp_path: Path
) -> None:
    stranger = Host(service, tmp_path / "stranger", "another site", {"mallory": key("c")})
    stranger.peer(other[1])
    assert "status 404" in stranger.keys.sync()["127.0.0.1"]
    assert stranger.map == f"{SHA['c']} mallory\n"
    # One that answers all the same cannot sign.
    victim = Host(service, tmp_path / "victim", "site", {"alice": key("a")})
    body, lies = json.dumps(record(9, mallory=key("c"))).encode(), [""]

    class Liar(service.server.Handler):  # type: ignore[name-defined, misc]
        def do_GET(self) -> None:  # noqa: N802
            nonce = self.headers.get("X-Nonce", "").encode()
            self.answer(body, lies[0] or stranger.keys.sign(b"answer", nonce, body))

    server = serving(service, stranger.keys)
    server.RequestHandlerClass = Liar
    victim.peer(server.server_port)
    for lies[0] in ("", "ü"):  # a false one, and one that no gateway writes
        assert "is not signed by a gateway of this site" in victim.keys.sync()["127.0.0.1"]
        assert "mallory" not in victim.map
    server.server_close_quietly()


def test_an_answer_is_to_one_question_only(service: ModuleType, other: tuple[Host, int]) -> None:
    host, _ = other
    assert host.keys.sign(b"answer", b"1", b"x") != host.keys.sign(b"answer", b"2", b"x")
    assert host.keys.sign(b"ask", b"1") != host.keys.sign(b"answer", b"1")


def test_a_question_that_was_overheard_is_no_good_again(service: ModuleType, other: tuple[Host, int]) -> None:
    host, port = other
    first = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    challenge = service.got(first, "/challenge", {})[0]
    about = {"X-Nonce": "1", "X-Signature": host.keys.sign(b"ask", b"1", challenge), "X-Have": ""}
    assert json.loads(service.got(first, "/keys", about)[0])["keys"].keys() == {"alice", "bob"}
    for way in (first, http.client.HTTPConnection("127.0.0.1", port, timeout=5)):
        with pytest.raises(service.PeerError, match="status 404"):
            service.got(way, "/keys", about)
    again = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    assert service.got(again, "/challenge", {})[0] != challenge
    with pytest.raises(service.PeerError, match="status 404"):
        service.got(again, "/keys", about)


def test_an_address_that_is_no_gateways_gets_neither_an_answer_nor_a_thread(
    service: ModuleType, tmp_path: Path
) -> None:
    host = Host(service, tmp_path / "other", "site", {"bob": key("b")})
    server = serving(service, host.keys, others=("10.0.0.9", "fd00:0::9"))
    asking = Host(service, tmp_path / "asking", "site", None)
    asking.peer(server.server_port)
    before = threading.active_count()
    assert "closed the connection. It answers gateway hosts alone" in asking.keys.sync()["127.0.0.1"]
    assert threading.active_count() == before
    assert server.verify_request(None, ("fd00::9%eth0", 1, 0, 2))
    # Another deploy knows it: no new listener is needed.
    peers = {"listen": "127.0.0.1", "port": 0, "others": ["127.0.0.1"]}
    assert service.server.served(peers, (("127.0.0.1", 0), server))[1] is server
    assert asking.keys.sync() == {}
    server.server_close_quietly()


class Process:
    """A running gateway, as far as telling it of keys goes; `broken` says why it cannot be told."""

    def __init__(self, service: ModuleType, monkeypatch: pytest.MonkeyPatch, host: Host) -> None:
        self.pids, self.knows, self.broken, self.times = [8], {}, None, 0
        self.error, self.service = service.haproxy, service
        monkeypatch.setattr(host.keys.gateway, "workers", self.workers)
        monkeypatch.setattr(service.store, "tell", self.tell)

    def workers(self) -> list[Any]:
        if not self.pids:
            raise self.error.NotRunningError("nothing answers")
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def tell(self, _: object, told: dict[str, Any]) -> int:
        self.times += 1
        if self.broken:
            raise self.error.HaproxyError(self.broken)
        self.knows = self.service.store.maps(told)["keys.map"]
        return 1


def test_a_process_that_could_not_be_told_is_told_again(
    service: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(service, tmp_path / "one", "site", {"alice": key("a")})  # the only gateway
    process = Process(service, monkeypatch, host)
    host.keys.tell()
    assert process.knows == {SHA["a"]: "alice"}
    host.keys.tell()
    assert process.times == 1, "it knows already"
    service.store.write(host.folder, record(2, alice=key("a", revoked=5)))
    process.broken = "did not answer"
    for _ in range(2):
        with pytest.raises(service.haproxy.HaproxyError):
            host.keys.tell()
    process.broken = None
    host.keys.tell()
    assert process.knows == {}
    # One that has read the files and does not listen yet, whatever its number is then.
    process.pids = []
    service.store.write(host.folder, record(3, bob=key("b")))
    host.keys.tell()
    process.pids = [8]
    host.keys.tell()
    assert process.knows == {SHA["b"]: "bob"}


def test_a_folder_that_somebody_removed_is_made_anew(
    service: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Host(service, tmp_path / "one", "site", None)
    host.keys.secret_file = tmp_path / "one" / "client-onprem-llm"
    host.keys.secret_file.write_text("sk-ours\n")
    host.keys.mend()
    assert not host.folder.exists(), "no gateway is on this host yet, or any more"
    (host.project / "compose.yaml").touch()
    host.keys.mend()
    assert [*shared("onprem_llm_client_keys").read(host.folder)["keys"]] == ["onprem-llm"]
    assert {path.name for path in host.folder.glob("*.map")} == set(shared("onprem_llm_client_keys").MAPS)
    assert "keys.json was gone: made anew without clients' keys" in capsys.readouterr().err
    before = (host.folder / "keys.json").stat().st_mtime_ns
    host.keys.mend()
    assert (host.folder / "keys.json").stat().st_mtime_ns == before


def test_a_silent_host_costs_its_limit(service: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert service.server.LIMIT <= 2  # a deploy waits for it
    monkeypatch.setattr(service.server, "LIMIT", 0.1)
    silent = service.socket.create_server(("127.0.0.1", 0))
    host = Host(service, tmp_path / "one", "site", {"alice": key("a")})
    host.peer(silent.getsockname()[1])
    assert "does not tell its keys" in host.keys.sync()["127.0.0.1"]
    silent.close()


def test_a_lone_gateway_asks_nobody(service: ModuleType, tmp_path: Path) -> None:
    host = Host(service, tmp_path / "one", "site", {"alice": key("a")})
    assert host.keys.peers() is None
    assert host.keys.sync() == {}
    assert service.server.served(None, None) is None
