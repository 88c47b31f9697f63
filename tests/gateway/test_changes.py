"""What clients notice while things change or fail: reloads, drains, killed and hung replicas."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ask import CHAT, Answer, Kept, ask, chat
from kit import Kit
from rig import Engine, Rig, backend, docker

SLOW = {"stream": True, "chunks": 30, "every": 0.1}


@pytest.fixture
def engines(kit: Kit) -> Iterator[list[Engine]]:
    """The two replicas of tiny, back as they were after the test."""
    two = kit.of("tiny")
    yield two
    for engine in two:
        engine.process.kill()
        engine.process.wait()
        engine.start()
        kit.rig.ask(f"set server tiny/{engine.project} state ready")
    kit.rig.until(lambda: all(kit.rig.servers()[f"tiny/{engine.project}"] == "UP" for engine in two), 10)


class Later:
    """A request in a thread of its own, on a kept connection if one is given."""

    def __init__(self, kit: Kit, body: dict[str, Any], kept: Kept | None = None) -> None:
        self.answer: Answer | None = None
        self._ask = kept.ask if kept else partial(ask, kit.rig.url)
        self._thread = threading.Thread(target=self._run, args=(body,))
        self._thread.start()

    def _run(self, body: dict[str, Any]) -> None:
        self.answer = self._ask(CHAT, body)

    def wait(self) -> Answer:
        self._thread.join(40)
        assert self.answer
        return self.answer


def events(answer: Answer) -> list[str]:
    return [line for line in answer.body.decode().splitlines() if line]


def sessions(kit: Kit, engine: Engine) -> int:
    rows = [line.split(",") for line in kit.rig.ask("show stat tiny 4 -1").splitlines()]
    return next(int(row[4]) for row in rows if row[1:2] == [engine.project])


def test_streams_drains_and_limits_outlive_a_reload(kit: Kit, engines: list[Engine]) -> None:
    kit.rig.key("five", rate="5/day")
    kit.rig.ask(f"add map /var/lib/keys/keys.map {key_line(kit, 'five')}")
    kit.rig.ask("add map /var/lib/keys/rates.map five 5/day")
    assert [ask(kit.rig.url, CHAT, chat("tiny"), key="five").status for _ in range(6)] == [200] * 5 + [429]
    kit.rig.ask("set server tiny/tiny-1 state drain")
    before = kit.rig.ask("show info")
    stream = Later(kit, chat("tiny", **SLOW))
    time.sleep(0.3)
    assert "Success=1" in kit.rig.reload()
    assert kit.rig.ask("show info") != before
    assert kit.rig.servers()["tiny/tiny-1"] == "DRAIN"
    assert {ask(kit.rig.url, CHAT, chat("tiny")).seen["server"] for _ in range(6)} == {"tiny-0"}
    assert ask(kit.rig.url, CHAT, chat("tiny"), key="five").status == 429
    assert (len(events(stream.wait())), events(stream.wait())[-1]) == (31, "data: [DONE]")


def key_line(kit: Kit, name: str) -> str:
    lines = (kit.rig.folder / "keys/keys.map").read_text().splitlines()
    return next(line for line in lines if line.endswith(f" {name}"))


def test_a_key_works_and_ends_at_once(kit: Kit) -> None:
    kit.rig.key("dora")
    line = key_line(kit, "dora")
    assert ask(kit.rig.url, CHAT, chat("tiny"), key="dora").status == 401
    kit.rig.ask(f"add map /var/lib/keys/keys.map {line}")
    assert ask(kit.rig.url, CHAT, chat("tiny"), key="dora").status == 200
    kit.rig.ask(f"del map /var/lib/keys/keys.map {line.split()[0]}")
    assert ask(kit.rig.url, CHAT, chat("tiny"), key="dora").status == 401


def test_a_drained_replica_ends_its_stream_and_gets_nothing_new(kit: Kit, engines: list[Engine]) -> None:
    kit.rig.ask("set server tiny/tiny-1 state drain")
    stream = Later(kit, chat("tiny", **SLOW))
    kit.rig.until(lambda: sessions(kit, engines[0]) == 1, 3)
    kit.rig.ask("set server tiny/tiny-1 state ready")
    kit.rig.ask("set server tiny/tiny-0 state drain")
    assert {ask(kit.rig.url, CHAT, chat("tiny")).seen["server"] for _ in range(4)} == {"tiny-1"}
    assert events(stream.wait())[-1] == "data: [DONE]"
    kit.rig.until(lambda: sessions(kit, engines[0]) == 0, 2)


def test_another_revision_is_let_in_by_a_reload(kit: Kit) -> None:
    old = kit.rig.gateway
    changed = [replace(one, admits=(1, 2)) if one.deployment == "old" else one for one in old.backends]
    kit.rig.write(replace(old, backends=tuple(changed)))
    kit.rig.reload()
    kit.rig.until(lambda: kit.rig.servers()["old/old-0"] == "UP", 10)
    assert ask(kit.rig.url, CHAT, chat("old")).seen["server"] == "old-0"
    kit.rig.write(old)
    kit.rig.reload()
    assert kit.rig.until(lambda: kit.rig.servers()["old/old-0"].startswith("DOWN"), 15) > 0


def test_a_server_at_another_address_is_not_held_to_its_old_state(kit: Kit) -> None:
    moved = Engine("session-1", "session").start()
    try:
        old = kit.rig.gateway
        kit.rig.ask("set server session/session-1 state drain")
        both = (kit.engines["session-0"].server(), moved.server())
        changed = [replace(one, servers=both) if one.deployment == "session" else one for one in old.backends]
        kit.rig.write(replace(old, backends=tuple(changed)))
        assert "Success=1" in kit.rig.reload()
        assert f" {moved.port} " in kit.rig.ask("show servers state session")
        kit.rig.write(old)
        kit.rig.reload()
        kit.rig.ask("set server session/session-1 state ready")
    finally:
        moved.process.kill()


def test_a_killed_replica_costs_no_request_that_is_not_on_it(kit: Kit, engines: list[Engine]) -> None:
    # HAProxy takes some answers to mean that a client on a kept connection shall ask again, and hangs up.
    kept = [Kept(kit.rig.url, chat("tiny")) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        began = [pool.submit(ask, kit.rig.url, CHAT, chat("tiny", sleep=0.5)) for _ in range(4)]
        began += [pool.submit(one.ask, CHAT, chat("tiny", sleep=0.5)) for one in kept]
        kit.rig.until(lambda: sum(sessions(kit, one) for one in engines) == 8, 5)
        engines[0].process.kill()
        engines[0].process.wait()
        later = [pool.submit(ask, kit.rig.url, CHAT, chat("tiny", sleep=0.02)) for _ in range(150)]
    lost = [one.result() for one in began if one.result().status != 200]
    assert {(one.status, one.error["code"]) for one in lost} <= {(502, "replica_failed"), (504, "replica_timeout")}
    assert len(lost) == 4
    assert {one.result().seen["server"] for one in later} == {"tiny-1"}


def test_a_hung_replica_is_out_within_15_s_and_its_requests_get_504(kit: Kit, engines: list[Engine]) -> None:
    kept = [Kept(kit.rig.url, chat("tiny")) for _ in range(6)]
    engines[0].process.send_signal(19)
    began = time.monotonic()
    # They take a while on the other replica too, so that both get their share of each kind.
    waiting = [Later(kit, chat("tiny", sleep=1)) for _ in range(6)]
    waiting += [Later(kit, chat("tiny", sleep=1), one) for one in kept]
    kit.rig.until(lambda: kit.rig.servers()["tiny/tiny-0"].startswith("DOWN"), 15)
    taken = time.monotonic() - began
    answers = [one.wait() for one in waiting]
    hung = [one for one in answers if one.status != 200]
    assert {(one.status, one.error["code"]) for one in hung} == {(504, "replica_timeout")}
    assert any(one.status != 200 for one in answers[:6])
    assert any(one.status != 200 for one in answers[6:])
    assert len(hung) < 12
    assert taken < 15
    assert {ask(kit.rig.url, CHAT, chat("tiny")).seen["server"] for _ in range(6)} == {"tiny-1"}
    engines[0].process.send_signal(18)
    kit.rig.until(lambda: kit.rig.servers()["tiny/tiny-0"] == "UP", 5)


def test_a_client_that_leaves_frees_its_replica(kit: Kit, engines: list[Engine]) -> None:
    client = subprocess.Popen(
        ["python3", "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from ask import *; "
         f"ask({kit.rig.url!r}, CHAT, chat('tiny', sleep=20))"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    kit.rig.until(lambda: sum(sessions(kit, one) for one in engines) == 1, 5)
    client.kill()
    client.wait()
    kit.rig.until(lambda: sum(sessions(kit, one) for one in engines) == 0, 2)


def test_metrics_and_health_are_local(kit: Kit) -> None:
    asked = "exec 3<>/dev/tcp/127.0.0.1/8405; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    metrics = docker("exec", kit.rig.name, "bash", "-c", asked)
    assert 'haproxy_server_status{proxy="tiny",server="tiny-0",state="UP"} 1' in metrics
    assert "alice" not in metrics
    docker("exec", kit.rig.name, "healthy", "8405")


def test_tls_from_a_certificate_of_ours(tmp_path: Path, certificates: Path, kit: Kit) -> None:
    small = replace(kit.rig.gateway, tls=True, backends=(backend("tiny", kit.of("tiny")),))
    rig = Rig(tmp_path, small)
    rig.write()
    rig.key("alice")
    pair = [(certificates / f"gateway.{end}").read_text() for end in ("crt", "key")]
    (tmp_path / "secrets/gateway.pem").write_text("".join(pair))
    ca = certificates / "ca.crt"
    try:
        rig.start()
        command = [
            "curl",
            "-sS",
            "--cacert",
            str(ca),
            "--resolve",
            f"gateway:8080:{rig.address}",
            "-w",
            "%{http_version}",
        ]
        command += ["-H", "Authorization: Bearer sk-alice", "--data-binary", "@-", f"https://gateway:8080{CHAT}"]
        body = json.dumps(chat("tiny", "x" * 600_000))
        done = subprocess.run(command, input=body, capture_output=True, text=True, check=False, timeout=30)
        assert done.stdout.endswith("2"), done
        assert json.loads(done.stdout[:-1])["seen"]["size"] == len(body)
        old = subprocess.run([*command, "--tls-max", "1.1"], input="{}", capture_output=True, text=True, check=False)
        assert old.returncode == 35
    finally:
        rig.stop()


def test_at_a_stop_a_stream_ends_and_the_log_has_its_line(tmp_path: Path, kit: Kit) -> None:
    rig = Rig(tmp_path, replace(kit.rig.gateway, backends=(backend("tiny", kit.of("tiny")),)))
    rig.write()
    rig.key("alice")
    with ThreadPoolExecutor() as pool:
        try:
            rig.start()
            stream = pool.submit(ask, rig.url, CHAT, chat("tiny", **SLOW))
            time.sleep(0.5)
            docker("stop", "--time", "20", rig.name)
            assert events(stream.result())[-1] == "data: [DONE]"
            assert docker("inspect", "--format", "{{.State.ExitCode}}", rig.name) == "0"
            assert " alice POST /v1/chat/completions tiny/tiny-" in rig.log()
        finally:
            rig.stop()
