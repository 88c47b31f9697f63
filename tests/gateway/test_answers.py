"""What a client gets: routes, refusals, streams, counters."""

import itertools
import json
import time

import openai
import pytest
from ask import CHAT, ask, chat
from kit import MAX_BODY, ODD_NAME, Kit


def test_the_engine_sees_its_own_key_and_none_of_the_clients_headers(kit: Kit) -> None:
    answer = ask(
        kit.rig.url, CHAT, chat("tiny"), X_Forwarded_For="1.2.3.4", Cookie="a=b", X_Data_Parallel_Rank="1",
        X_Request_Id="mine",
    )  # fmt: skip
    headers = answer.seen["headers"]
    assert headers["authorization"] == "Bearer engine-key-of-tiny"
    assert headers["x-forwarded-for"] not in ("1.2.3.4", "")
    assert headers["x-request-id"] == answer.headers["x-request-id"] != "mine"
    assert not {"cookie", "x-data-parallel-rank"} & set(headers)


def test_a_path_names_the_deployment_and_the_engine_does_not_see_it(kit: Kit) -> None:
    assert ask(kit.rig.url, f"/tiny{CHAT}", b"no json").status != 404  # the engine's own business
    seen = ask(kit.rig.url, f"/tiny{CHAT}", {"model": "whatever"}).seen
    assert (seen["path"], seen["server"][:4]) == (CHAT, "tiny")


def test_model_as_last_key_of_600_kb(kit: Kit) -> None:
    body = chat("tiny", "x" * 600_000)
    assert list(body)[-1] == "model"
    assert ask(kit.rig.url, CHAT, body).seen["size"] > 600_000


def test_the_longest_body_that_passes_and_one_byte_more(kit: Kit) -> None:
    short = json.dumps(chat("tiny", "")).encode()
    longest = short.replace(b'""', b'"' + b"x" * (MAX_BODY - len(short)) + b'"')
    assert ask(kit.rig.url, CHAT, longest).seen["size"] == MAX_BODY
    answer = ask(kit.rig.url, CHAT, longest.replace(b"xx", b"xxx", 1))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert str(MAX_BODY) in answer.error["message"]


@pytest.mark.parametrize("size", [MAX_BODY + 1, 5 * MAX_BODY])
def test_a_body_too_large_in_chunks(kit: Kit, size: int) -> None:
    body = json.dumps(chat("tiny", "x" * size)).encode()[:size]
    answer = ask(kit.rig.url, CHAT, iter([body[at : at + 60_000] for at in range(0, size, 60_000)]))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_chunks_below_the_limit_pass(kit: Kit) -> None:
    body = json.dumps(chat("tiny", "x" * 900_000)).encode()
    parts = iter([body[at : at + 999] for at in range(0, len(body), 999)])
    assert ask(kit.rig.url, CHAT, parts).seen["size"] == len(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'[{"model": "tiny"}]', b'{"messages": [{"model": "tiny"}]}', b'"model"', b'{"model": null}',
     b'{"a": {"model": "tiny"}}', b'{"model": {"model": "tiny"}}'],
)  # fmt: skip
def test_no_model_of_its_own_is_400(kit: Kit, body: bytes) -> None:
    answer = ask(kit.rig.url, CHAT, body)
    assert (answer.status, answer.error["param"]) == (400, "model")


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"model": "vec", "content": "\\"model\\": \\"vec\\""}], "model": "tiny"}',
        b'{"metadata": {"model": "vec"}, "x": ["model", "vec", {"model": "vec"}], "model": "tiny"}',
        b' \n{ "model" :\t"tiny" , "messages": []}',
        b'{"model": "t\\u0069ny"}',
        b'{"user": "a\\\\", "model": "tiny"}',
        b'{"user": "\\u4e16\\ud83d\\ude00\\ud83d \\\\u4e16", "model": "tiny"}',
    ],
)
def test_the_top_level_model_wins(kit: Kit, body: bytes) -> None:
    assert ask(kit.rig.url, CHAT, body).seen["server"][:4] == "tiny"


def test_a_name_with_blanks_quotes_and_beyond_ascii(kit: Kit) -> None:
    kit.rig.until(lambda: kit.rig.servers()["odd/odd-0"] == "UP", 10)
    for text in (json.dumps(chat(ODD_NAME)), json.dumps(chat(ODD_NAME), ensure_ascii=False)):
        assert ask(kit.rig.url, CHAT, text.encode()).seen["server"] == "odd-0"
    assert kit.client().models.retrieve(ODD_NAME).id == ODD_NAME


def test_models_are_listed_to_those_with_a_key(kit: Kit) -> None:
    listed = [one.id for one in kit.client().models.list()]
    assert listed == ["liar", "none", ODD_NAME, "old", "prefix", "rank", "session", "tiny", "vec"]
    assert [one.created for one in kit.client().models.list()] == [0] * 9
    with pytest.raises(openai.AuthenticationError):
        kit.client("nobody").models.list()
    with pytest.raises(openai.NotFoundError, match="`nix`"):
        kit.client().models.retrieve("nix")
    own = kit.client(path="/tiny/v1")
    assert [one.id for one in own.models.list()] == ["tiny"]
    assert own.models.retrieve("tiny").id == "tiny"


def test_the_page_is_shown_what_one_can_chat_with(kit: Kit) -> None:
    listed = [one.id for one in kit.client("open-webui").models.list()]
    assert listed == ["liar", "none", ODD_NAME, "old", "prefix", "session", "tiny"]


def test_a_restricted_key_is_shown_what_it_may_use(kit: Kit) -> None:
    listed = {key: [one.id for one in kit.client(key).models.list()] for key in ("only-vec", "some", "only-gone")}
    assert listed == {"only-vec": ["vec"], "some": [ODD_NAME, "tiny"], "only-gone": []}


@pytest.mark.parametrize("key", ["nobody", "late"])
def test_unknown_and_expired_keys_are_401(kit: Kit, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        kit.client(key).chat.completions.create(**chat("tiny"))
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"].startswith("Bearer")
    assert ask(kit.rig.url, CHAT, chat("tiny"), key=None).error["code"] == "invalid_api_key"


def test_refusals_as_the_openai_client_sees_them(kit: Kit) -> None:
    client = kit.client()
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**chat('ti"ny'))
    assert caught.value.code == "model_not_found"
    assert '`ti"ny`' in caught.value.message
    with pytest.raises(openai.APIStatusError) as large:
        client.chat.completions.create(**chat("tiny", "x" * 2 * MAX_BODY))
    assert (large.value.status_code, large.value.code) == (413, "request_too_large")
    with pytest.raises(openai.PermissionDeniedError) as denied:
        kit.client("only-vec").chat.completions.create(**chat("tiny"))
    assert denied.value.code == "model_not_found"
    assert kit.client("only-vec").embeddings.create(model="vec", input="x").model == "vec"
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.chat.completions.create(**chat("vec"))


@pytest.mark.parametrize("path", ["", "/tiny", "/vec"])
def test_a_restricted_key_by_every_path(kit: Kit, path: str) -> None:
    answer = ask(kit.rig.url, f"{path}/v1/embeddings", chat("tiny" if path == "" else "vec"), key="only-vec")
    assert answer.status == {"": 404, "/tiny": 404, "/vec": 200}[path]
    assert ask(kit.rig.url, f"/tiny{CHAT}", chat("vec"), key="only-vec").status == 403


def test_a_limit_ends_in_429_and_says_when_to_come_back(kit: Kit) -> None:
    client = kit.client("limited")
    for _ in range(3):
        client.chat.completions.create(**chat("tiny"))
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**chat("tiny"))
    wait = int(caught.value.response.headers["retry-after"])
    assert abs(wait - (3600 - time.time() % 3600)) < 3
    assert caught.value.code == "rate_limit_exceeded"
    assert kit.rig.usage("limited") == [3, 21, 9, 1]
    assert ask(kit.rig.url, CHAT, chat("tiny")).status == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/pause", "/tokenize", "/metrics", "/health", "/v1/load_lora_adapter", "/tiny/metrics", "/tiny/health",
     "/tiny/v1/embeddings", "/v1/../metrics", "/v1//chat/completions", "/v1/chat/completions/", "/tiny/tiny/v1/models",
     "/%76%31/chat/completions", "/nix/v1/chat/completions", "//v1/chat/completions", "/tiny/v1/rerank"],
)  # fmt: skip
def test_all_other_paths_are_404(kit: Kit, path: str) -> None:
    answer = ask(kit.rig.url, path, chat("tiny"))
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")


def test_other_methods_and_long_headers(kit: Kit) -> None:
    assert ask(kit.rig.url, CHAT, method="GET").error["code"] == "method_not_allowed"
    answer = ask(kit.rig.url, CHAT, chat("tiny"), X_Long="x" * 40_000)
    assert (answer.status, answer.error["code"]) == (431, "headers_too_long")


def test_health_needs_no_key_and_metrics_are_not_public(kit: Kit) -> None:
    assert ask(kit.rig.url, "/healthz", method="GET", key=None).json == {"status": "ok"}
    assert ask(kit.rig.url, "/metrics", method="GET", key=None).status == 401


@pytest.mark.parametrize("name", ["none", "old", "liar"])
def test_no_replica_no_admitted_revision_no_right_certificate_is_503(kit: Kit, name: str) -> None:
    answer = ask(kit.rig.url, CHAT, chat(name))
    assert (answer.status, answer.error["code"]) == (503, "no_replica_ready")


def test_a_stream_is_not_buffered(kit: Kit) -> None:
    client = kit.client("bob")
    began, arrivals = time.monotonic(), []
    for event in client.chat.completions.create(**chat("tiny", stream=True), extra_body={"every": 0.1}):
        arrivals.append((event.number, time.monotonic() - began))  # type: ignore[attr-defined]
    assert [number for number, _ in arrivals] == list(range(8))
    assert arrivals[0][1] < 0.1
    assert all(0.05 < after - before < 0.2 for (_, before), (_, after) in itertools.pairwise(arrivals))
    assert kit.rig.usage("bob") == [1, 0, 0, 0]


def test_counters_equal_what_the_client_saw(kit: Kit) -> None:
    client = kit.client("carol")
    answers = [client.chat.completions.create(**chat("tiny")) for _ in range(5)]
    client.embeddings.create(model="vec", input="x", extra_body={"fill": 300_000})
    list(client.chat.completions.create(**chat("tiny", stream=True)))
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**chat("nix"))
    assert sum(one.usage.total_tokens for one in answers if one.usage) == 50
    assert kit.rig.usage("carol") == [7, 6 * 7, 6 * 3, 1]


def test_least_load_uses_the_idle_replica(kit: Kit) -> None:
    stream = kit.client().chat.completions.create(**chat("tiny", stream=True), extra_body={"every": 0.2})
    busy = next(iter(stream)).server  # type: ignore[attr-defined]
    assert {ask(kit.rig.url, CHAT, chat("tiny")).seen["server"] for _ in range(6)} == {"tiny-0", "tiny-1"} - {busy}
    stream.close()


def servers(kit: Kit, *bodies: object, **headers: str) -> set[str]:
    return {ask(kit.rig.url, CHAT, body, **headers).seen["server"] for body in bodies for _ in range(4)}


def test_a_session_stays(kit: Kit) -> None:
    for how in ("header", "user"):
        where = [
            servers(kit, chat("session"), X_Session_Id=f"s{n}")
            if how == "header"
            else servers(kit, chat("session", user=f"用户{n}"))
            for n in range(12)
        ]
        assert {len(one) for one in where} == {1}
        assert set.union(*where) == {"session-0", "session-1"}
    assert len(servers(kit, chat("session", "a"), chat("session", "b"))) == 1


def conversation(system: object, first: object, *later: object) -> dict[str, object]:
    roles = ["system", "user", *["assistant", "user"] * 9]
    said = [one for one in zip(roles, (system, first, *later), strict=False) if one[1]]
    return {"messages": [{"role": role, "content": text} for role, text in said], "model": "prefix"}


@pytest.mark.parametrize("system", ["You are a bot.", "你是机器人", [{"type": "text", "text": "Be a bot."}], None])
def test_a_prefix_stays(kit: Kit, system: object) -> None:
    where = []
    for number in range(12):
        first = f"question {number}"
        same = [conversation(system, first), conversation(system, first, "a", "b"), conversation(system, first, "c")]
        where.append(servers(kit, *same))
    assert {len(one) for one in where} == {1}
    assert set.union(*where) == {"prefix-0", "prefix-1"}


def test_a_completions_prefix_stays(kit: Kit) -> None:
    where = []
    for number in range(12):
        head = f"{number} " * 1500
        bodies = [{"prompt": head + tail, "model": "prefix"} for tail in ("a", "b")]
        where.append({ask(kit.rig.url, "/v1/completions", body).seen["server"] for body in bodies})
    assert {len(one) for one in where} == {1}
    assert set.union(*where) == {"prefix-0", "prefix-1"}


def test_the_log_has_names_and_no_secrets(kit: Kit) -> None:
    ask(kit.rig.url, CHAT + "?key=sk-in-the-query", chat("tiny", "a private thought"))
    kit.rig.until(lambda: " alice POST /v1/chat/completions tiny/tiny-" in kit.rig.log(), 5)
    log = kit.rig.log()
    assert "sk-" not in log
    assert "engine-key" not in log
    assert "private" not in log
