"""The load client against servers that misbehave: what is a failure is counted as one, and nothing else is."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.certificates import certificate
from tests.load.client import Settings
from tests.load.driver import PROGRAM, Load, capacity

STUB = Path(__file__).parents[1] / "e2e" / "stub_engine" / "vllm"
CHUNK = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}], "system_fingerprint": "stub-x"}
LAST = {"choices": [{"delta": {}, "finish_reason": "length"}]}
WHOLE = {"choices": [{"finish_reason": "length"}], "usage": {"prompt_tokens": 3, "completion_tokens": 8}}
OPENAI_ERROR = {"error": {"message": "too late", "type": "timeout", "code": "timeout"}}


def plain(status: int, value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def chunked(*events: object, end: bool = True) -> bytes:
    said = [event if isinstance(event, str) else json.dumps(event) for event in events]
    parts = [f"data: {one}\n\n".encode() for one in said]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if end else b"")


GOOD_STREAM = chunked(CHUNK, LAST, "[DONE]")
# What the server sends -> what the record must say of it.
STREAMS = {
    "good": (GOOD_STREAM, ""),
    "no answer": (b"", "no answer: IncompleteReadError"),
    "cut": (chunked(CHUNK, end=False), "in the answer: IncompleteReadError"),
    "no done": (chunked(CHUNK, LAST), "the stream has no [DONE]"),
    "no reason": (chunked(CHUNK, "[DONE]"), "the stream has no finish_reason"),
    "error inside": (chunked(CHUNK, OPENAI_ERROR, "[DONE]"), "an error in the stream: timeout"),
    "not chunked, cut": (b"HTTP/1.1 200 X\r\n\r\ndata: " + json.dumps(CHUNK).encode(), "the stream has no [DONE]"),
    "504": (plain(504, OPENAI_ERROR), "status 504"),
}
WHOLES = {
    "good": (plain(200, WHOLE), ""),
    "cut": (plain(200, WHOLE)[:-5], "in the answer: IncompleteReadError"),
    "no reason": (plain(200, {"choices": [{}]}), "no finish_reason"),
    "500": (plain(500, OPENAI_ERROR), "status 500"),
    "503 of another shape": (b"HTTP/1.1 503 X\r\nContent-Length: 2\r\n\r\nno", "in the answer: JSONDecodeError"),
    "401": (plain(401, OPENAI_ERROR), ""),
    "not HTTP": (b"hello\r\n\r\n", "no answer: IndexError"),
}


class Server:
    """Sends the same bytes to every request, then closes, or keeps the connection, or drops it at the second."""

    def __init__(self, answer: bytes, *, keep: bool = False, drop: bool = False, delay: float = 0.0) -> None:
        self.answer, self.keep, self.drop, self.delay, self.connections = answer, keep, drop, delay, 0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(self.serve, "127.0.0.1", 0), self.loop)
        self.port = starting.result(10).sockets[0].getsockname()[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.read(65536):
            # The body comes with the head: the client writes both at once.
            assert b"\r\n\r\n" in head
            await asyncio.sleep(self.delay)
            writer.write(self.answer)
            if self.drop:
                await reader.read(65536)
            if not self.keep:
                break
        writer.close()

    def settings(self, **more: object) -> Settings:
        return Settings(**{"url": f"http://127.0.0.1:{self.port}/v1", "model": "m", "rate": 100, "count": 3, **more})


def one_run(settings: Settings) -> Load:
    with Load(settings) as load:
        load.finish()
    return load


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    answer, failure = STREAMS[name]
    load = one_run(Server(answer).settings(streams=1))
    assert [one.kind for one in load.records] == ["stream"] * 3
    for one in load.records:
        assert one.failure == failure or (failure and one.failure.startswith(failure)), one
    assert load.summary["failed"] == (3 if failure else 0)


@pytest.mark.parametrize("name", WHOLES)
def test_whole_answers(name: str) -> None:
    answer, failure = WHOLES[name]
    load = one_run(Server(answer).settings(streams=0))
    for one in load.records:
        assert one.failure == failure or (failure and one.failure.startswith(failure)), one
    assert load.summary["failed"] == (3 if failure else 0)
    assert (load.summary["completion_tokens"], load.summary["prompt_tokens"]) == ((24, 9) if name == "good" else (0, 0))
    assert bool(load.bad()) == (name != "good")


def test_an_error_in_openais_shape_is_told_from_others() -> None:
    assert {one.error for one in one_run(Server(plain(504, OPENAI_ERROR)).settings()).records} == {"timeout"}
    assert {one.error for one in one_run(Server(plain(504, {"error": "late"})).settings()).records} == {""}


def test_nobody_listens() -> None:
    with Load(Settings(url="http://127.0.0.1:9/v1", model="m", count=2)) as load:
        load.finish()
    assert all(one.failure.startswith("connect: ConnectionRefusedError") for one in load.records)
    assert load.summary["answered"] == 0


def test_a_connection_is_kept() -> None:
    server = Server(plain(200, WHOLE), keep=True)
    load = one_run(server.settings(streams=0, fresh=0, rate=20, count=5))
    assert [one.kept for one in load.records] == [False, True, True, True, True]
    assert server.connections == 1


def test_a_connection_that_was_closed_before_is_not_used() -> None:
    load = one_run(Server(plain(200, WHOLE)).settings(streams=0, fresh=0, rate=10, count=3))
    assert [(one.kept, one.failure) for one in load.records] == [(False, "")] * 3


def test_a_kept_connection_closed_under_a_request_is_a_failure_and_nothing_is_sent_again() -> None:
    load = one_run(Server(plain(200, WHOLE), drop=True).settings(streams=0, fresh=0, rate=10, count=4))
    assert [(one.kept, bool(one.failure)) for one in load.records] == [(False, False), (True, True)] * 2
    assert load.records[1].failure.startswith("no answer")


def test_the_rate_is_kept_while_answers_are_slow() -> None:
    server = Server(plain(200, WHOLE), delay=1.0)
    load = one_run(server.settings(streams=0, rate=20, count=20, limit=5))
    starts = sorted(one.started for one in load.records)
    assert starts[-1] - starts[0] == pytest.approx(0.95, abs=0.3)
    assert load.summary["failed"] == 0
    assert load.summary["p50"] >= 1.0


def test_the_clients_limit() -> None:
    load = one_run(Server(plain(200, WHOLE), delay=5.0).settings(streams=0, limit=0.3))
    assert [one.failure for one in load.records] == ["no end within 0.3 s"] * 3


def test_too_many_in_flight_ends_the_load_with_an_error() -> None:
    with pytest.raises(AssertionError, match="ended with 1"):
        one_run(Server(plain(200, WHOLE), delay=3.0).settings(streams=0, count=50, in_flight=5, limit=4))


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The stub engine of the e2e tests, with TLS and a key."""
    crt, key = certificate(tmp_path_factory.mktemp("tls"), "stub", "IP:127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, STUB, "serve", "/m", "--served-model-name", "a", "a:r1", "--port", str(port),
         f"--ssl-keyfile={key}", f"--ssl-certfile={crt}"],
        env={"VLLM_API_KEY": "k", "STUB_PACE": "0.005"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    ca = Path(crt).read_text()
    settings = Settings(f"https://127.0.0.1:{port}/v1", "a", key="k", ca=ca, rate=40, count=80)
    end = time.monotonic() + 20
    while Load(Settings(**{**vars(settings), "count": 1})).finish()["failed"]:
        assert time.monotonic() < end
    yield settings
    process.kill()
    process.wait()


def test_the_stub_engine_takes_all_kinds_over_tls(stub: Settings) -> None:
    load = one_run(stub)
    load.assert_all_good(80)
    assert load.summary["completion_tokens"] == 40 * 8
    assert all(one.chunks == 8 for one in load.records if one.kind == "stream")
    assert all(one.served_by.startswith("stub-") for one in load.records)


def test_the_stub_engine_copes_with_fifty_clients(stub: Settings) -> None:
    assert capacity(Settings(**{**vars(stub), "count": 400}), workers=50, seconds=20) > 20


def test_a_wrong_key_is_no_failure_but_not_good_either(stub: Settings) -> None:
    load = one_run(Settings(**{**vars(stub), "key": "other", "count": 4}))
    assert load.summary["statuses"] == {"401": 4}
    assert not load.failed()
    assert len(load.bad()) == 4


def test_a_certificate_of_another_ca_is_refused(stub: Settings) -> None:
    load = one_run(Settings(**{**vars(stub), "ca": "", "count": 2}))
    assert all("CERTIFICATE_VERIFY_FAILED" in one.failure for one in load.records)


def test_it_ends_when_whoever_started_it_is_gone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    server = Server(plain(200, WHOLE))
    out, _ = process.communicate(json.dumps(vars(server.settings(count=10_000, seconds=600))) + "\n", timeout=10)
    assert "summary" in out.splitlines()[-1]
