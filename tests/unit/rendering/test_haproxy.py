"""The gateway's files: what is reloaded, what is restarted, and text that comes from people."""

import json
from dataclasses import replace

import pytest

from onprem_llm.rendering.haproxy import Backend, Gateway, Server, draft
from onprem_llm.rendering.haproxy_backends import key_variable

TINY = Backend("tiny", "tiny", "chat", "least_load", (3,), (Server("tiny-0", "10.0.0.2", 8000),))
GATEWAY = Gateway("sha256:abc", "/srv/onprem-llm", "0.0.0.0", 8080, False, 1 << 20, 600, (TINY,))  # noqa: S104


def files(*backends: Backend, **changes: object) -> dict[str, str]:
    return dict(draft(replace(GATEWAY, backends=backends, **changes)).files)  # type: ignore[arg-type]


def test_another_deployment_is_a_reload_and_another_image_a_restart() -> None:
    other = replace(TINY, deployment="vec", served_name="vec", task="embed")
    assert draft(replace(GATEWAY, backends=(TINY, other))).digest == draft(GATEWAY).digest
    assert draft(replace(GATEWAY, image="sha256:def")).digest != draft(GATEWAY).digest


def test_the_page_is_shown_chat_deployments_alone() -> None:
    tasks = [replace(TINY, deployment=task, served_name=f"a-{task}", task=task)
             for task in ("embed", "chat", "rerank", "completion")]  # fmt: skip
    found = files(*tasks)
    assert [one["id"] for one in json.loads(found["conf/chat-models.json"])["data"]] == ["a-chat"]
    assert len(json.loads(found["conf/models.json"])["data"]) == 4
    assert files(tasks[0])["conf/chat-models.json"].strip() == '{"object":"list","data":[]}'


def test_the_order_of_deployments_and_replicas_changes_nothing() -> None:
    two = replace(TINY, servers=(*TINY.servers, Server("tiny-1", "10.0.0.3", 8000)))
    other = replace(TINY, deployment="a", served_name="z")
    turned = replace(two, servers=two.servers[::-1])
    assert files(two, other) == files(other, turned)


def test_a_replica_keeps_its_place_on_the_ring_when_another_goes() -> None:
    servers = tuple(Server(f"tiny-{n}", "10.0.0.2", 8000 + n) for n in range(11))
    text = files(replace(TINY, servers=(servers[10], servers[2])))["conf/deployments/tiny.cfg"]
    lines = [line.split()[1:5] for line in text.splitlines() if line.startswith("    server ")]
    assert lines == [["tiny-2", "10.0.0.2:8002", "id", "3"], ["tiny-10", "10.0.0.2:8010", "id", "11"]]


def test_a_revision_is_let_in_by_its_whole_number() -> None:
    text = files(replace(TINY, admits=(13, 3)))["conf/deployments/tiny.cfg"]
    assert "expect rstring '\"(tiny):r(3|13)\"'\n" in text


@pytest.mark.parametrize("name", ["it's", "a b", 'say "x"', "$HOME ${X}", "#1", "%[src]", "Ö世界", "a\\b"])
def test_a_served_name_stays_text(name: str) -> None:
    found = files(replace(TINY, served_name=name))
    assert len(found["conf/models.map"].split()) == 2
    check = next(line for line in found["conf/deployments/tiny.cfg"].splitlines() if "rstring" in line)
    inside = check.partition("rstring ")[2]
    assert inside.startswith("'")
    assert inside.endswith("'")
    assert inside[1:-1].replace("'\\''", "").count("'") == 0


def test_ipv6_stands_in_brackets() -> None:
    found = files(replace(TINY, servers=(Server("tiny-0", "fd00::2", 8000),)), address="fd00::1")
    assert "server tiny-0 [fd00::2]:8000 " in found["conf/deployments/tiny.cfg"]
    assert "bind [fd00::1]:8080\n" in found["conf/haproxy.cfg"]


def test_a_replica_with_a_certificate_is_held_to_its_name() -> None:
    tls = replace(TINY, servers=(Server("tiny-0", "10.0.0.2", 8000, "engine.lab-2"),))
    line = files(tls)["conf/deployments/tiny.cfg"].splitlines()[-1]
    assert "ssl verify required ca-file /run/secrets-gateway/ca.crt verifyhost engine.lab-2 " in line
    assert "ssl" not in files(TINY)["conf/deployments/tiny.cfg"]


def test_only_the_paths_of_the_task_pass() -> None:
    maps = files(replace(TINY, task="rerank"))["conf/paths.map"]
    assert "/v1/rerank *\n" in maps
    assert "/tiny/v1/rerank tiny\n" in maps
    assert "chat" not in maps


def test_no_secret_is_rendered() -> None:
    assert key_variable("my-model-2") == "ONPREM_LLM_KEY_MY_MODEL_2"
    assert '"Bearer ${ONPREM_LLM_KEY_TINY}"' in files(TINY)["conf/deployments/tiny.cfg"]
