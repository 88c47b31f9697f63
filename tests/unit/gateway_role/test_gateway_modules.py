import hashlib
import json
import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from .conftest import module, shared

SHA = "ab" * 32


def params(tmp_path: Path, action: str, **more: Any) -> dict[str, Any]:
    return {"action": action, "path": str(tmp_path / "keys"), "project": str(tmp_path / "gateway"), "internal": [],
            "secrets": str(tmp_path / "secrets"), "name": None, "key": None,
            "sha256": None, **more}  # fmt: skip


@pytest.fixture
def keys(tmp_path: Path) -> Callable[..., Any]:
    """Return gateway_keys on a host whose gateway does not run."""
    run = module("gateway_keys").run
    (tmp_path / "secrets").mkdir()
    run(params(tmp_path, "prepare"), False)

    def do(action: str, *, check: bool = False, **more: Any) -> Any:
        return run(params(tmp_path, action, **more), check)

    return do


def record(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "keys" / "keys.json").read_text())
    return found


def test_files_of_a_key(keys: Callable[..., Any], tmp_path: Path) -> None:
    about = {"models": ["tiny", "large"], "rate": {"count": 5, "unit": "hour"}, "expires": 9, "by": "me"}
    assert keys("create", name="alice", sha256=SHA, key=about)[0]
    folder = tmp_path / "keys"
    texts = {path.name: path.read_text() for path in folder.glob("*.map")}
    assert texts == {
        "keys.map": f"{SHA} alice\n",
        "rates.map": "alice 5/hour\n",
        "expires.map": "alice 9\n",
        "restricted.map": "alice 1\n",
        "allowed.map": "alice:large 1\nalice:tiny 1\n",
    }
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert record(tmp_path)["serial"] == 1
    assert not keys("create", name="alice", sha256=SHA, key=about)[0]  # the same once more: a run that was cut off
    assert record(tmp_path)["serial"] == 1
    assert keys("revoke", name="alice")[0]
    assert {path.read_text() for path in folder.glob("*.map")} == {""}
    assert record(tmp_path)["serial"] == 2
    assert record(tmp_path)["keys"]["alice"]["revoked"]
    assert keys("create", name="alice", sha256="cd" * 32)[0]


def test_refusals(keys: Callable[..., Any], tmp_path: Path) -> None:
    keys("create", name="alice", sha256=SHA)
    before = record(tmp_path)
    for more, said in (
        ({"action": "create", "name": "alice", "sha256": "cd" * 32}, "a key called 'alice' already"),
        ({"action": "create", "name": "bob", "sha256": SHA}, "known under another name"),
        ({"action": "create", "name": "bob", "sha256": "short"}, "keys.bob.sha256: not 64"),
        ({"action": "create", "name": "a b", "sha256": "cd" * 32}, "keys.a b: not a name"),
        ({"action": "create", "name": "bob", "sha256": "cd" * 32, "key": {"models": ["x\ny"]}}, "keys.bob.models"),
        ({"action": "create", "name": "open-webui", "sha256": "cd" * 32}, "internal key; choose another"),
        ({"action": "revoke", "name": "open-webui"}, "cannot be revoked"),
        ({"action": "revoke", "name": "bob"}, "no key is called 'bob'; keys: alice"),
    ):
        with pytest.raises(Exception, match=said):
            keys(**more)
    assert record(tmp_path) == before


def test_the_same_name_can_be_given_twice_at_once_to_different_people_only_once(tmp_path: Path) -> None:
    module("gateway_keys").run(params(tmp_path, "prepare"), False)
    names = [f"k{number}" for number in range(12)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_create, args=(tmp_path, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert sorted(record(tmp_path)["keys"]) == sorted(names), "no key is lost"
    assert record(tmp_path)["serial"] == len(names)


def _create(tmp_path: Path, name: str) -> None:
    sha256 = name.encode().hex().ljust(64, "0")
    module("gateway_keys").run(params(tmp_path, "create", name=name, sha256=sha256), False)


def test_a_name_given_anew_counts_although_its_key_was_revoked_by_a_clock_ahead(
    keys: Callable[..., Any], tmp_path: Path
) -> None:
    keys("create", name="alice", sha256=SHA)
    ahead = record(tmp_path)
    ahead["keys"]["alice"].update(created=4_000_000_000, revoked=4_000_000_005)
    (tmp_path / "keys" / "keys.json").write_text(json.dumps(ahead))
    keys("create", name="alice", sha256="cd" * 32)
    assert record(tmp_path)["keys"]["alice"]["created"] == 4_000_000_006


def test_no_hash_is_in_a_log_or_a_result(
    keys: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda _, text, **__: logged.append(str(text)))
    main = module("gateway_keys").main
    order = {"action": "create", "path": str(tmp_path / "keys"), "project": str(tmp_path / "gateway"), "sha256": SHA,
             "name": "alice", "key": {"by": "me", "models": None, "rate": None, "expires": None}}  # fmt: skip
    for more in ({}, {"sha256": "cd" * 32}):
        with patch_module_args({**order, **more}), pytest.raises(SystemExit):
            main()
    said = capsys.readouterr().out
    assert record(tmp_path)["keys"]["alice"]["sha256"] == SHA
    assert any("name=alice" in line for line in logged)
    assert "a key called 'alice' already" in said, "no name is struck out of what a person reads"
    assert not [text for text in (*logged, said) if SHA in text or "cd" * 32 in text]


def test_a_backup_brings_back_nothing_that_was_revoked_since(
    keys: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    store = shared("onprem_llm_client_keys")
    monkeypatch.setattr(store, "tell", lambda _, record: told.append(store.maps(record)["keys.map"]) or 0)
    clear = tmp_path / "secrets" / "client-onprem-llm"
    for name, letter in (("alice", "a"), ("bob", "b")):
        keys("create", name=name, sha256=letter * 64)
    clear.write_text("sk-of-the-backup")
    keys("prepare", internal=["onprem-llm"])
    then = (tmp_path / "keys" / "keys.json").read_text()
    keys("revoke", name="bob")
    keys("create", name="carol", sha256="c" * 64)
    clear.write_text("sk-since")
    keys("prepare", internal=["onprem-llm"])
    given = tmp_path / "keys" / "given.json"
    given.write_text(then)
    given.chmod(0o600)
    changed, found = keys("merge")
    assert changed
    assert found == {"keys_restored": {"known": True, "kept": ["carol"], "revoked": ["bob"], "unread": False}}
    ours = hashlib.sha256(b"sk-of-the-backup").hexdigest()
    assert told[-1] == {"a" * 64: "alice", "c" * 64: "carol", ours: "onprem-llm"}, "the running process knows at once"
    assert (tmp_path / "keys" / "keys.map").read_text().split()[::2] == sorted(["a" * 64, "c" * 64, ours])
    assert not given.exists()
    assert keys("merge") == (False, {})


def test_a_process_that_cannot_be_told_holds_up_no_restore(
    keys: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise shared("onprem_llm_haproxy").HaproxyError("the master does not answer")

    keys("create", name="alice", sha256=SHA)
    (tmp_path / "keys" / "keys.json").rename(tmp_path / "keys" / "given.json")
    monkeypatch.setattr(shared("onprem_llm_client_keys"), "tell", refuse)
    assert keys("merge")[0], "onprem-llm-keys tells it as soon as it answers"
    assert (tmp_path / "keys" / "keys.map").read_text() == f"{SHA} alice\n"


class Process:
    """A worker of HAProxy and its maps; one that is going may have lost some."""

    def __init__(self, *, old: bool, maps: dict[str, dict[str, str]]) -> None:
        self.old, self.maps = old, maps

    def ask(self, command: str) -> str:
        found = self.maps.get(command.rpartition("/")[2])
        if found is None:
            return "Unknown map identifier. Please use #<id> or <file>.\n"
        return "".join(f"0x7f {entry} {value}\n" for entry, value in found.items())

    def tell(self, command: str) -> None:
        verb, _, where, *entry = command.split(" ")
        found = self.maps[where.rpartition("/")[2]]
        found.pop(entry[0]) if verb == "del" else found.update([entry])


def test_an_old_process_that_still_serves_streams_is_told_too() -> None:
    store = shared("onprem_llm_client_keys")
    full: dict[str, dict[str, str]] = {name: {} for name in store.MAPS}
    new = Process(old=False, maps={**full, "keys.map": {SHA: "alice"}, "rates.map": {"alice": "5/hour"}})
    old = Process(old=True, maps={"keys.map": {SHA: "alice"}})
    alice = {"sha256": SHA, "models": None, "rate": None, "expires": None, "created": 1, "revoked": 2}
    bob = {**alice, "sha256": "cd" * 32, "revoked": None}
    record = {"version": 1, "serial": 2, "keys": {"alice": alice, "bob": bob}}
    assert store.tell(SimpleNamespace(workers=lambda: [new, old]), record) == 5
    assert new.maps == {**full, "keys.map": {"cd" * 32: "bob"}}
    assert old.maps == {"keys.map": {"cd" * 32: "bob"}}
    new.maps.pop("rates.map")
    with pytest.raises(Exception, match=r"does not use /var/lib/keys/rates\.map"):
        store.tell(SimpleNamespace(workers=lambda: [new]), record)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_host_that_knew_no_keys_says_so(keys: Callable[..., Any], tmp_path: Path, damaged: bool) -> None:
    keys("create", name="alice", sha256=SHA)
    record = tmp_path / "keys" / "keys.json"
    given = record.rename(tmp_path / "keys" / "given.json")
    if damaged:
        record.write_text("{")
    assert keys("merge")[1]["keys_restored"] == {"known": False, "kept": [], "revoked": [], "unread": damaged}
    assert (tmp_path / "keys" / "keys.map").read_text() == f"{SHA} alice\n"
    assert not given.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "serial": 0, "keys": {"a": {}}}'])
def test_a_damaged_record_is_named_and_left_alone(keys: Callable[..., Any], tmp_path: Path, text: str) -> None:
    keys("create", name="alice", sha256=SHA)
    path = tmp_path / "keys" / "keys.json"
    path.write_text(text)
    for action in ("prepare", "list", "usage"):
        with pytest.raises(Exception, match=rf"the key file {path} cannot be read"):
            keys(action)
    with pytest.raises(Exception, match=rf"the key file {path} cannot be read"):
        keys("create", name="bob", sha256="cd" * 32)
    assert path.read_text() == text
    assert (tmp_path / "keys" / "keys.map").read_text() == f"{SHA} alice\n"


def test_a_host_without_a_gateway_says_so(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"there is no folder .*/keys: this host has no gateway yet"):
        module("gateway_keys").run(params(tmp_path, "list"), False)


def test_internal_keys_are_taken_from_their_files(keys: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(Exception, match="client-open-webui cannot be read"):
        keys("prepare", internal=["open-webui"])
    (tmp_path / "secrets" / "client-open-webui").write_text("sk-one\n")
    assert keys("prepare", internal=["open-webui"], check=True)[0]
    assert not record(tmp_path)["keys"]
    assert keys("prepare", internal=["open-webui"])[0]
    assert not keys("prepare", internal=["open-webui"])[0]
    listed = keys("list")[1]["keys"]
    assert listed["open-webui"]["internal"]
    assert "sha256" not in listed["open-webui"]


def test_a_map_that_somebody_edited_is_made_anew(keys: Callable[..., Any], tmp_path: Path) -> None:
    keys("create", name="alice", sha256=SHA)
    (tmp_path / "keys" / "keys.map").write_text(f"{'0' * 64} alice\n")
    assert keys("prepare")[0]
    assert (tmp_path / "keys" / "keys.map").read_text() == f"{SHA} alice\n"


def test_the_ledger_counts_each_process_once() -> None:
    usage = shared("onprem_llm_usage")
    ledger = usage.empty(0)
    assert usage.fold(ledger, {"1-8": {"a": [2, 10, 5, 0]}}, 1)
    assert not usage.fold(ledger, {"1-8": {"a": [2, 10, 5, 0]}}, 2)
    usage.fold(ledger, {"1-8": {"a": [3, 10, 5, 1]}, "2-9": {"a": [1, 4, 4, 0], "b": [7, 0, 0, 0]}}, 3)
    assert ledger["totals"] == {"a": [4, 14, 9, 1], "b": [7, 0, 0, 0]}
    usage.fold(ledger, {"2-9": {"a": [1, 1, 1, 0]}}, 4)  # the entry was dropped and begun anew
    assert ledger["totals"]["a"] == [5, 15, 10, 1]
    usage.fold(ledger, {}, 5)  # the gateway did not answer; nothing is forgotten
    assert not usage.fold(ledger, {"2-9": {"a": [1, 1, 1, 0]}}, 6)
    usage.fold(ledger, {"3-8": {}}, 6 + usage.FORGET + 1)
    assert list(ledger["processes"]) == ["3-8"]
    assert ledger["totals"]["b"] == [7, 0, 0, 0]


def test_counters_of_more_than_32_bits() -> None:
    usage = shared("onprem_llm_usage")
    line = "0x7f: key=alice use=0 exp=0 shard=0 gpc0=5 gpc1=7 gpc2=0 gpc3=2 gpc4=1 gpc5=0"
    assert usage.counters(f"# table: {usage.TABLE}, used:1\n{line}\n") == {"alice": [5, 7 + 2**32, 0, 2]}


def test_a_key_with_two_entries_is_counted_whole() -> None:
    usage = shared("onprem_llm_usage")
    lines = [f"0x7f{n}: key=alice use=0 exp=0 shard=0 gpc0={n} gpc1=7 gpc2=0 gpc3=2 gpc4=0 gpc5=0" for n in (11, 1)]
    assert usage.counters("\n".join([f"# table: {usage.TABLE}, used:2", *lines])) == {"alice": [12, 14, 0, 4]}


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    usage = shared("onprem_llm_usage")
    (tmp_path / "usage.json").write_text("{")
    with pytest.raises(Exception, match=rf"{tmp_path}/usage.json cannot be read"):
        usage.book(tmp_path, {})


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Any]]:
    """Return a gateway whose sockets answer what they are told to."""
    (tmp_path / "run").mkdir()
    servers = []

    def begin(answers: dict[str, str]) -> Any:
        def serve(one: socket.socket) -> None:
            while True:
                try:
                    connection, _ = one.accept()
                except OSError:
                    return
                with connection:
                    command = connection.makefile().readline().strip()
                    found = next((text for start, text in answers.items() if command.startswith(start)), "Unknown\n")
                    connection.sendall(found.encode())

        one = socket.socket(socket.AF_UNIX)
        one.bind(str(tmp_path / "run" / "master.sock"))
        one.listen()
        servers.append(one)
        threading.Thread(target=serve, args=(one,), daemon=True).start()
        return shared("onprem_llm_haproxy").Gateway(tmp_path)

    yield begin
    for one in servers:
        one.close()


PROCESSES = """#<PID>  <type>  <reloads>  <uptime>  <version>
1       master  1 [failed: 0]  0d00h00m42s  3.0.11
# workers
12      worker  0  0d00h00m01s  3.0.11
# old workers
8       worker  1  0d00h00m42s  3.0.11
# programs
"""


def test_workers_are_told_from_the_master_and_the_old(haproxy: Callable[[dict[str, str]], Any]) -> None:
    gateway = haproxy({"show proc": PROCESSES, "@!8": "Can't find the target PID matching the prefix '@!8'\n"})
    assert [(worker.pid, worker.old) for worker in gateway.workers()] == [(12, False), (8, True)]
    assert gateway.workers()[1].servers() == {}, "an old worker that has just ended has no servers"


def test_a_failed_reload_says_what_haproxy_said(haproxy: Callable[[dict[str, str]], Any]) -> None:
    gateway = haproxy({"reload": "Success=0\n--\n[ALERT]    (1) : Binding for frontend: cannot bind socket\n"})
    with pytest.raises(Exception, match="cannot bind socket"):
        gateway.reload()


def test_no_socket_is_a_gateway_that_does_not_run(tmp_path: Path) -> None:
    route = module("gateway_route")
    wanted = {
        "path": str(tmp_path),
        "drain": ["tiny/tiny-0"],
        "ready": [],
        "let_in": [],
        "wait": 1,
        "ready_wait": 1,
        "settle": 0,
    }
    assert route.run(wanted, False) == (False, {"tiny/tiny-0": {"state": "absent", "sessions": 0}})
    with pytest.raises(Exception, match=r"nothing answers on .*/run/master.sock"):
        route.run({**wanted, "ready": ["tiny/tiny-0"]}, False)


def test_what_was_down_before_is_let_in_and_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    route = module("gateway_route")
    server = {"admin": "drain", "up": False, "check": "L4CON", "sessions": 0}
    told: list[str] = []
    worker = SimpleNamespace(servers=lambda: {"tiny/tiny-0": dict(server)}, tell=told.append)
    gateway = SimpleNamespace(worker=lambda: worker, dump_state=lambda path: None)
    monkeypatch.setattr(route, "Gateway", lambda path: gateway)
    nothing = {"path": str(tmp_path), "drain": [], "ready": [], "let_in": [], "wait": 0, "ready_wait": 0, "settle": 0}
    assert route.run({**nothing, "let_in": ["tiny/tiny-0", "tiny/gone"]}, False) == (True, {})
    assert told == ["set server tiny/tiny-0 state ready"]
    with pytest.raises(Exception, match="health check did not pass within 0 s: tiny/tiny-0: L4CON"):
        route.run({**nothing, "ready": ["tiny/tiny-0"]}, False)


def test_files_that_the_role_writes_itself_cannot_be_rendered() -> None:
    files = shared("onprem_llm_gateway_files")
    for name in ("secrets/gateway.pem", "run/x", "../x", "/etc/x", ".env"):
        with pytest.raises(files.FilesError, match="may not have a file named"):
            files.check_names({"compose.yaml": b"", name: b""})


def test_engine_keys_are_quoted_for_haproxy_or_refused(tmp_path: Path) -> None:
    files = shared("onprem_llm_gateway_files")
    (tmp_path / "tiny").write_text("abc-_.\n")
    assert files.engine_keys(tmp_path, {"ONPREM_LLM_KEY_TINY": "tiny"}) == (
        'global\n    setenv ONPREM_LLM_KEY_TINY "abc-_."\n'
    )
    (tmp_path / "tiny").write_text('x"\nglobal')
    with pytest.raises(files.FilesError, match="tiny is empty or no key of ours"):
        files.engine_keys(tmp_path, {"ONPREM_LLM_KEY_TINY": "tiny"})
    with pytest.raises(files.FilesError, match="none cannot be read"):
        files.engine_keys(tmp_path, {"ONPREM_LLM_KEY_TINY": "none"})


def test_swapped_files_can_be_put_back(tmp_path: Path) -> None:
    files = shared("onprem_llm_gateway_files")
    files.folders(tmp_path)
    files.swap(tmp_path, {"compose.yaml": b"1", "conf/a": b"1", "conf/gone": b"1", "secrets/engine-keys.cfg": b"k1"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    former = files.swap(tmp_path, {"compose.yaml": b"2", "conf/a": b"2", "conf/new": b"2",
                                   "secrets/engine-keys.cfg": b"k2"})  # fmt: skip
    assert not (tmp_path / "conf" / "gone").exists()
    assert files.recorded(tmp_path) == {"compose.yaml", "conf/a", "conf/new"}
    assert (tmp_path / "secrets" / "engine-keys.cfg").stat().st_mode & 0o777 == 0o600
    files.restore(tmp_path, former)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
