"""A client with a key that wants more than its share: late bodies, bodies that are slow to read, odd requests."""

import http.client
import json
import time
from urllib.parse import urlsplit

import pytest
from ask import CHAT, Answer, ask, chat
from kit import MAX_BODY, ODD_NAME, Kit

LONG = MAX_BODY - 4096


class Late:
    """A request whose body has begun and does not end until it is told to."""

    def __init__(self, url: str, key: str, body: bytes) -> None:
        place = urlsplit(url)
        self._body = body
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        self._connection.putrequest("POST", CHAT)
        self._connection.putheader("Authorization", f"Bearer sk-{key}")
        self._connection.putheader("Content-Length", str(len(body)))
        self._connection.endheaders(body[:1])

    def end(self) -> None:
        self._connection.send(self._body[1:])

    def answer(self) -> Answer:
        return Answer(self._connection.getresponse())


def test_a_body_that_comes_late_counts_all_the_same(kit: Kit) -> None:
    # Alone, for the first two of a window may both be the first (docs/keys.md).
    assert ask(kit.rig.url, CHAT, chat("tiny"), key="slow").status == 200
    requests = [Late(kit.rig.url, "slow", json.dumps(chat("tiny")).encode()) for _ in range(12)]
    time.sleep(0.5)
    for one in requests:
        one.end()
    assert sorted(one.answer().status for one in requests) == 2 * [200] + 10 * [429]
    assert kit.rig.usage("slow") == [3, 21, 9, 10]


def test_what_is_refused_for_its_body_counts_against_the_limit(kit: Kit) -> None:
    refused = [b"{", chat("nope"), chat("vec")]
    assert [ask(kit.rig.url, CHAT, body, key="wrong").status for body in refused] == [400, 404, 404]
    assert ask(kit.rig.url, CHAT, chat("tiny"), key="wrong").status == 429


@pytest.mark.parametrize("model", ["nope", "tiny", "prefix", "session"])
@pytest.mark.parametrize("text", ["\\\\", "\\u4e00", "\\u00e9", "\\/", '\\"', "\\uD83D\\uDE00"])
def test_no_body_holds_up_the_others(kit: Kit, model: str, text: str) -> None:
    long = text * (LONG // len(text)) + "\\u4e00"
    where = {"model": model, "messages": [{"role": "user", "content": "@"}]}
    body = json.dumps(where).replace("@", long).encode()
    before = kit.rig.cpu()
    assert {ask(kit.rig.url, CHAT, body).status for _ in range(3)} == {404 if model == "nope" else 200}
    assert 0.001 < (kit.rig.cpu() - before) / 3 < 0.12  # 0.02 to 0.04, and 0.008 for any body as long


def test_no_name_holds_up_the_others(kit: Kit) -> None:
    body = b'{"model": "' + b"\\u4e00" * (LONG // 6) + b'"}'
    before = kit.rig.cpu()
    assert ask(kit.rig.url, CHAT, body).error["code"] == "model_not_found"
    assert 0.001 < kit.rig.cpu() - before < 0.12


@pytest.mark.parametrize("spell", [json.dumps, lambda text: json.dumps(text).replace("/", "\\/").replace("4e", "4E")])
def test_a_name_in_every_spelling(kit: Kit, spell: object) -> None:
    assert callable(spell)
    kit.rig.until(lambda: kit.rig.servers()["odd/odd-0"] == "UP", 10)
    for before in ("", '"user": "C:\\\\users \\ud83d\\ude00 \\ud83d \\/ \\\\/", '):
        body = "{" + before + f'"model": {spell(ODD_NAME)}' + "}"
        assert ask(kit.rig.url, CHAT, body.encode()).seen["server"] == "odd-0"


@pytest.mark.parametrize("tail", ["世" * 50_000, " C:\\users\\世/Ö", "\\", "/" * 9, '"\\u4e16"\b\1'])
@pytest.mark.parametrize("path", ["chat", "completions", "responses"])
def test_an_escaped_prompt_stays(kit: Kit, path: str, tail: str) -> None:
    where = []
    for number in range(12):
        text = f"世{number} {tail}"
        messages = [{"role": "system", "content": "世"}, {"role": "user", "content": text}]
        more = [*messages, {"role": "assistant", "content": "Ö"}, {"role": "user", "content": "b"}]
        bodies: list[dict[str, object]] = [{"messages": messages}, {"messages": more}]
        if path != "chat":
            bodies = [{{"completions": "prompt", "responses": "input"}[path]: text, "user": user} for user in "ab"]
        raw = [json.dumps({**body, "model": "prefix"}).replace("/", "\\/").encode() for body in bodies]
        target = {"chat": CHAT}.get(path, f"/v1/{path}")
        where.append({ask(kit.rig.url, target, body).seen["server"] for body in raw})
    assert {len(one) for one in where} == {1}
    assert set.union(*where) == {"prefix-0", "prefix-1"}


def test_tokens_are_counted_whatever_the_api_calls_them(kit: Kit) -> None:
    assert ask(kit.rig.url, "/v1/responses", chat("tiny"), key="erin").status == 200
    assert kit.rig.usage("erin") == [1, 7, 3, 0]
    assert ask(kit.rig.url, "/v1/rerank", chat("rank"), key="erin").status == 200
    assert kit.rig.usage("erin") == [2, 14, 3, 0]
