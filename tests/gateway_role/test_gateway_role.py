"""The role's modules against the real HAProxy: reloads, drains, keys and counts, while requests run."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Site, docker, eventually
from .engines import COMPLETION_TOKENS, PROMPT_TOKENS


@pytest.fixture
def served(site: Site) -> Site:
    """A gateway with both replicas up."""
    site.do("prepare", internal=["open-webui"])
    assert site.load()[0] == "start"
    site.route(ready=["tiny/tiny-0", "tiny/tiny-1"])
    return site


def held(site: Site, key: str, **body: Any) -> tuple[threading.Thread, list[bytes]]:
    """Begin a chat whose answer an engine holds back."""
    got: list[bytes] = []

    def wait() -> None:
        got.append(site.ask(key, hold=True, **body).read())

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    eventually(lambda: any(one.waiting.acquire(blocking=False) for one in site.engines), text="an engine has it")
    return thread, got


def server_of(site: Site) -> str:
    """Return the server that a request is on."""
    found = {name: one["sessions"] for worker in site.workers() for name, one in worker.servers().items()}
    return next(name for name, sessions in found.items() if sessions)


def test_load_reload_drain_and_back_with_a_stream_that_survives(served: Site) -> None:
    key = served.create("alice")
    assert served.chat(key) == 200
    assert served.load()[0] == "none"  # a second run does nothing
    thread, got = held(served, key, stream=True)
    busy = server_of(served)
    action, written, warnings, _ = served.load(settings=served.changed(admits=(1, 2)))
    assert (action, written, warnings) == ("reload", ["conf/deployments/tiny.cfg"], [])
    assert [worker.old for worker in served.workers()] == [False, True]
    assert served.load(settings=served.changed(admits=(1, 2)))[0] == "none"

    # The stream is on the old worker; a drain must see it there.
    begun = time.monotonic()
    assert served.route(drain=[busy], wait=1) == (True, {busy: {"state": "drain", "sessions": 1}})
    assert time.monotonic() - begun >= 1
    before = sum(one.chats for one in served.engines)
    spared = served.engines[int(busy[-1])].chats
    assert [served.chat(key) for _ in range(4)] == [200] * 4
    assert served.engines[int(busy[-1])].chats == spared, "a drained replica gets nothing"
    assert sum(one.chats for one in served.engines) == before + 4

    threading.Timer(0.5, lambda: [one.gate.set() for one in served.engines]).start()
    assert served.route(drain=[busy], wait=10) == (False, {busy: {"state": "drain", "sessions": 0}})
    thread.join(5)
    assert b"[DONE]" in got[0]
    for one in served.engines:
        one.gate.clear()

    # An old worker cannot be told of a drain: while one lives, connections that clients hold get time to end.
    thread, _ = held(served, key, stream=True)
    assert served.load()[0] == "reload"
    begun = time.monotonic()
    served.route(drain=[busy], settle=3, wait=10)
    assert 2 <= time.monotonic() - begun < 6
    for one in served.engines:
        one.gate.set()
    thread.join(5)

    # A reload and a restart keep the drain; the container's own restart too.
    assert served.load(settings=served.changed(admits=(1, 3)))[0] == "reload"
    assert served.workers()[0].servers()[busy]["admin"] == "drain"
    docker("kill", "--signal", "KILL", f"{served.name}-haproxy-1")
    docker("start", f"{served.name}-haproxy-1")
    served.await_worker()
    assert served.workers()[0].servers()[busy]["admin"] == "drain"
    assert served.route(ready=[busy])[1][busy]["state"] == "ready"
    assert served.route(ready=[busy])[0] is False


def test_a_replica_that_is_not_admitted_is_not_ready_and_it_is_said_why(served: Site) -> None:
    served.engines[0].revision = 9
    eventually(lambda: not served.workers()[0].servers()["tiny/tiny-0"]["up"], limit=15, text="the old revision is out")
    with pytest.raises(Exception, match=r"did not pass within 1 s: tiny/tiny-0: L7"):
        served.route(ready=["tiny/tiny-0"], ready_wait=1)
    with pytest.raises(Exception, match=r"does not know tiny/tiny-7; it has tiny/tiny-0, tiny/tiny-1"):
        served.route(ready=["tiny/tiny-7"])
    assert served.route(drain=["tiny/tiny-7"])[1] == {"tiny/tiny-7": {"state": "absent", "sessions": 0}}


def test_what_haproxy_refuses_changes_nothing(served: Site) -> None:
    key = served.create("alice")
    before = {path: path.read_bytes() for path in (served.folder / "conf").rglob("*") if path.is_file()}
    workers = [worker.pid for worker in served.workers()]
    with pytest.raises(Exception, match=r"conf/deployments/tiny.cfg:\d+.*unknown keyword 'blance'") as refused:
        served.load(edit=("balance leastconn", "blance leastconn"))
    assert "engine-key" not in str(refused.value)
    assert str(served.folder / "conf") in str(refused.value)
    assert {path: path.read_bytes() for path in before} == before
    assert [worker.pid for worker in served.workers()] == workers
    # Readable, but it cannot be had: HAProxy says so at the reload only, and the former files come back.
    with pytest.raises(
        Exception, match=r"former ones were put back, the gateway goes on with them(.|\n)*203\.0\.113\.1"
    ):
        served.load(edit=("bind 127.0.0.1:", "bind 203.0.113.1:1234\n    bind 127.0.0.1:"))
    assert {path: path.read_bytes() for path in before} == before
    assert served.chat(key) == 200
    assert served.load()[0] == "none"


def test_a_gateway_that_cannot_start_goes_back(served: Site) -> None:
    key = served.create("alice")
    with pytest.raises(Exception, match=r"ended as soon as(.|\n)*former files were put back, and the gateway runs"):
        served.load(edit=("master.sock,mode,600", "nowhere/master.sock,mode,600"), wait=5)
    assert served.chat(key) == 200


def test_keys_work_at_once_and_outlive_a_restart(served: Site) -> None:
    pids = [worker.pid for worker in served.workers()]
    key = served.create("alice", models=["tiny"], rate={"count": 2, "unit": "day"})
    other = served.create("bob", models=["large"])
    late = served.create("carol", expires=int(time.time()) - 1)
    assert [served.chat(key) for _ in range(3)] == [200, 200, 429]
    assert served.chat(other) == 403
    assert served.chat(late) == 401
    assert served.chat("sk-internal") == 200
    assert served.chat("sk-nobody") == 401
    assert served.do("revoke", name="bob")[0] is True
    assert served.do("revoke", name="bob")[0] is False
    assert served.chat(other) == 401
    assert [worker.pid for worker in served.workers()] == pids, "no reload"
    docker("restart", "--time", "20", f"{served.name}-haproxy-1")
    served.await_worker()
    served.route(ready=["tiny/tiny-0"])
    assert (served.chat(key), served.chat(other)) == (200, 401)
    listed = served.do("list")[1]["keys"]
    assert listed["open-webui"]["internal"]
    assert "sha256" not in str(listed)


def test_keys_given_while_the_gateway_is_down_count_when_it_is_up(served: Site) -> None:
    gone = served.create("alice")
    docker("stop", f"{served.name}-haproxy-1")
    new = served.create("bob")
    served.do("revoke", name="alice")
    assert served.load()[0] == "start"
    served.route(ready=["tiny/tiny-0"])
    assert (served.chat(new), served.chat(gone)) == (200, 401)


def test_a_process_that_lost_a_key_is_told_of_it_again(served: Site) -> None:
    key = served.create("alice")
    worker = served.workers()[0]
    worker.tell("clear map /var/lib/keys/keys.map")
    assert served.chat(key) == 401
    assert served.do("prepare")[0] is True
    assert served.chat(key) == 200


def test_usage_equals_what_the_client_counted_over_reload_and_restart(served: Site) -> None:
    key = served.create("alice", rate={"count": 1000, "unit": "day"})
    served.count()
    eventually((served.keys / "usage.json").exists, text="the counter holds the worker")
    asked = whole = 0
    for _ in range(5):
        whole += served.chat(key) == 200
        asked += 1
    # A whole answer that ends on the old worker, while the new one counts.
    thread, got = held(served, key)
    assert served.load(settings=served.changed(admits=(1, 2)))[0] == "reload"
    for _ in range(4):
        whole += served.chat(key) == 200
        asked += 1
    assert served.chat(key, model="none") == 404
    for one in served.engines:
        one.gate.set()
    thread.join(5)
    assert got
    eventually(lambda: len(served.workers()) == 1, limit=15, text="the old worker may go once it is counted")
    asked, whole = asked + 1, whole + 1
    expected = {"requests": asked, "prompt_tokens": whole * PROMPT_TOKENS,
                "completion_tokens": whole * COMPLETION_TOKENS, "refused": 1}  # fmt: skip
    assert served.usage("alice") == expected
    docker("stop", "--time", "20", f"{served.name}-haproxy-1")
    assert served.usage("alice") == expected
    docker("start", f"{served.name}-haproxy-1")
    served.await_worker()
    served.route(ready=["tiny/tiny-0"])
    assert served.chat(key, stream=True) == 200
    eventually(lambda: len(served.ledger()["processes"]) == 3, text="the counter holds the new process")
    docker("restart", "--time", "20", f"{served.name}-haproxy-1")  # nothing looked meanwhile but the counter
    assert served.usage("alice") == {**expected, "requests": asked + 1}


def test_key_files_that_others_can_read_are_refused(served: Site, tmp_path: Path) -> None:
    path = served.keys / "keys.json"
    path.chmod(0o644)
    with pytest.raises(Exception, match=rf"{path} has mode 0644, expected 0600(.|\n)*chmod 0600 {path}"):
        served.do("list")
    path.chmod(0o600)
    served.keys.chmod(0o755)
    with pytest.raises(Exception, match=rf"{served.keys} has mode 0755, expected 0700(.|\n)*chmod 0700"):
        served.do("prepare")
