"""The gateway as a client meets it, and changes of replicas that the client does not notice. On the stub engine."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator

import openai
import pytest
from conftest import Site
from tests.load import changes
from tests.load.rehearsal import Rehearsal
from tests.load.served import Served, served

# Without a chat deployment no Open WebUI is started; the load client wants chats, and the stub answers both.
MODEL = """\
api_version: 1
name: gate
model: model
served_name: Gate Model
engine: {image: "onprem-llm/stub-engine:1", engine_args: {max_model_len: 512}}
resources: {gpus: 0}
replicas: 2
env: {STUB_PACE: "0.02"}
timeouts: {start: 60, readiness: 20}
"""


@pytest.fixture(scope="module")
def gate(site: Site) -> Iterator[Served]:
    """Two replicas on two hosts, and a key."""
    settings = (site.folder / "group_vars/all.yml").read_text()
    site.write("group_vars/all.yml", settings.replace("port: 3000", "enabled: false"))
    rehearsal = Rehearsal(site)
    with served(rehearsal, "gate", MODEL, model="Gate Model") as one:
        yield one
    site.write("group_vars/all.yml", settings)


@pytest.fixture
def client(gate: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[..., openai.OpenAI]:
    """OpenAI's own client, with the site's root certificate and this key."""
    settings = gate.rehearsal.settings("Gate Model", gate.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(gate.site.write("ca.crt", settings.ca)))
    return lambda key=gate.key: openai.OpenAI(base_url=settings.url, api_key=key, max_retries=0)


HELLO = [{"role": "user", "content": "hello"}]


def test_answers_whole_and_as_a_stream(client: Callable[..., openai.OpenAI]) -> None:
    ask = client()
    assert [model.id for model in ask.models.list()] == ["Gate Model"]
    whole = ask.chat.completions.create(model="Gate Model", messages=HELLO, max_tokens=4)
    assert "stub" in (whole.choices[0].message.content or "")
    chunks = list(ask.chat.completions.create(model="Gate Model", messages=HELLO, max_tokens=4, stream=True))
    assert chunks[-1].choices[0].finish_reason


def test_refusals_have_the_shape_that_clients_know(client: Callable[..., openai.OpenAI]) -> None:
    with pytest.raises(openai.AuthenticationError):
        client("sk-nobody").models.list()
    ask = client()
    with pytest.raises(openai.NotFoundError) as unknown:
        ask.chat.completions.create(model="nothing", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    large = [{"role": "user", "content": "x" * 1_100_000}]
    with pytest.raises(openai.APIStatusError) as too_large:
        ask.chat.completions.create(model="Gate Model", messages=large)
    assert too_large.value.status_code == 413
    for path in ("metrics", "tokenize", "pause"):
        with pytest.raises(openai.NotFoundError):
            ask.post(f"/{path}", cast_to=object, body={"model": "Gate Model"})


def test_a_key_works_at_once_and_is_limited_counted_and_revoked(
    gate: Served, client: Callable[..., openai.OpenAI]
) -> None:
    name = f"limited-{secrets.token_hex(3)}"
    ask = client(gate.rehearsal.key(name, "--rate", "2/hour", "--models", "gate"))
    for _ in range(2):
        ask.chat.completions.create(model="Gate Model", messages=HELLO, max_tokens=4)
    with pytest.raises(openai.RateLimitError):
        ask.chat.completions.create(model="Gate Model", messages=HELLO, max_tokens=4)
    used = gate.rehearsal.usage(name)
    assert (used["requests"], used["completion_tokens"], used["refused"]) == (2, 8, 1)
    gate.site.run("key", "revoke", name)
    with pytest.raises(openai.AuthenticationError):
        ask.models.list()


def test_an_update_and_the_way_back_lose_nothing(gate: Served) -> None:
    lengths, before = gate.lengths(), gate.births()
    with gate.load(rate=10) as load:
        changes.rolling_update(gate, load)
        gate.site.run("rollback", "gate", "--yes")
        changes.replaced(gate, before)
        changes.serves_again(gate, load)
    load.assert_all_good(200)
    assert gate.lengths() == lengths


def test_what_was_done_is_in_the_book(gate: Served) -> None:
    *_, first, second, third = (one["revision"] for one in gate.site.json("history", "gate")["revisions"])
    assert "max_model_len" in gate.site.run("diff", "gate", str(first), str(second)).stdout
    assert "max_model_len" not in gate.site.run("diff", "gate", str(first), str(third)).stdout
    last = gate.site.json("events", "gate")["events"][-2:]
    assert [(event["action"], event["result"]) for event in last] == [("deploy", "ok"), ("rollback", "ok")]


def test_a_failed_update_leaves_the_old_revision_serving(gate: Served) -> None:
    before = gate.lengths()
    with gate.load(rate=5) as load:
        done = gate.deploy(("max_model_len: 512", "max_model_len: 512, no_such_arg: 1"), code=5)
        gate.in_rotation(2, 30)
    load.assert_all_good(60)
    assert "no-such-arg" in done.stdout + done.stderr
    assert gate.lengths() == before
    assert gate.site.json("events", "gate")["events"][-1]["result"] == "failed"


def test_scaling_down_and_up(gate: Served) -> None:
    gate.site.run("scale", "gate", "--replicas", "1", "--yes")
    assert gate.up() == ["gate-0"]
    gate.site.run("scale", "gate", "--replicas", "2", "--yes")
    gate.in_rotation(2, 10)


def test_a_host_is_drained_and_comes_back(gate: Served) -> None:
    with gate.load(rate=5) as load:
        gate.site.run("host", "drain", gate.rehearsal.hosts[1], "--yes")
        assert gate.up() == ["gate-0"]
        gate.site.run("host", "undrain", gate.rehearsal.hosts[1], "--yes")
        gate.in_rotation(2, 10)
    load.assert_all_good(30)


def test_more_replicas_than_gpus_are_refused_with_a_table(gate: Served) -> None:
    gate.write(("gpus: 0", "gpus: 2"), ("replicas: 2", "replicas: 3"))
    shown = gate.site.run("deploy", gate.file, code=3).stderr
    assert "another replica" in shown
    gate.write()


def test_a_served_name_is_nobody_elses(gate: Served) -> None:
    gate.site.write("twin.yaml", MODEL.replace("name: gate", "name: twin"))
    assert "Gate Model" in gate.site.run("deploy", "twin.yaml", code=3).stderr
    assert json.loads(gate.site.run("status", "--json").stdout)["deployments"][0]["name"] == "gate"


def test_new_weights_leave_this_machine_once_and_are_passed_on(gate: Served) -> None:
    settings = (gate.site.folder / "group_vars/all.yml").read_text()
    gate.site.write("group_vars/all.yml", f"{settings}  fan_out: always\n")
    shutil.copytree(gate.site.folder / "model", gate.site.folder / "model-new")
    weights = gate.site.folder / "model-new" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    first, second = gate.rehearsal.hosts[:2]
    # The port of the one who gives is shut until then, and again afterwards: a stranger's SYN is dropped.
    for rule in ("-p tcp --dport 7470:7570 -s 127.0.0.0/8 -j ACCEPT", "-p tcp --dport 7470:7570 -j DROP"):
        gate.site.lab.exec_root(first, "sh", "-c", f"iptables -A INPUT {rule}")
    shut = gate.site.lab.exec_root(first, "iptables", "-S", "INPUT")
    shown = gate.deploy(("model: model\n", "model: model-new\n"))
    said = shown.stdout + shown.stderr
    assert gate.site.lab.exec_root(first, "iptables", "-S", "INPUT") == shut
    gate.site.lab.exec_root(first, "iptables", "-F", "INPUT")
    assert f"passed on from {first}" in said
    assert "from this machine instead" not in said
    ask = "sha256sum /srv/onprem-llm/weights/model-new-*/model.safetensors"
    there = gate.site.lab.exec_root(second, "sh", "-c", ask)
    assert there.split()[0] == hashlib.sha256(weights.read_bytes()).hexdigest()
    gate.in_rotation(2, 10)
    for host in (first, second):
        left = gate.site.lab.exec_root(host, "sh", "-c", "ls -d /run/onprem-llm-fan-out* || true; systemctl list-units")
        assert "fan-out" not in left
    assert gate.site.json("plan", gate.file)["noop"] is True
    gate.site.write("group_vars/all.yml", settings)
