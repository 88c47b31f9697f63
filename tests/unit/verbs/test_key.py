"""`onprem-llm key`: what a person writes, and what the gateways are told."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from onprem_llm import client_keys
from onprem_llm.commands import key as verbs
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, UsageError
from onprem_llm.run_events import HostFailure, RunResult

NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("text", "count", "unit"),
    [("60/min", 60, "minute"), ("5/s", 5, "second"), ("1/hour", 1, "hour"), ("9000/d", 9000, "day")],
)
def test_rates(text: str, count: int, unit: str) -> None:
    assert client_keys.parse_rate(text) == {"count": count, "unit": unit}


@pytest.mark.parametrize(
    "text", ["", "60", "0/min", "-1/min", "60/week", "1.5/min", "60 per min", "2147483648/s", f"{'9' * 5000}/s"]
)
def test_rates_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="--rate"):
        client_keys.parse_rate(text)


def test_ends() -> None:
    assert client_keys.parse_expiry("90d", NOW) == NOW + 90 * 86400
    assert client_keys.parse_expiry("30m", NOW) == NOW + 1800
    assert client_keys.parse_expiry("8w", NOW) == NOW + 56 * 86400
    for text in ("", "90", "0d", "-1d", "1y", "999999d", f"{'9' * 5000}d"):
        with pytest.raises(UsageError, match="--expires"):
            client_keys.parse_expiry(text, NOW)


def test_names() -> None:
    client_keys.check_name("ci.nightly-2")
    for name in ("", "Alice", "-a", "a b", "a:b", "a/b", "x" * 64, "open-webui", "onprem-llm", "a\nb", "a\n"):
        with pytest.raises(UsageError):
            client_keys.check_name(name)


def test_a_key_is_long_and_never_the_same() -> None:
    assert client_keys.make_key() != client_keys.make_key()
    assert client_keys.make_key().startswith("sk-")
    assert len(client_keys.make_key()) >= 46


def test_models_are_deployments_or_the_names_they_are_served_by(monkeypatch: pytest.MonkeyPatch) -> None:
    served = {"tiny": "org/Tiny", "large": "large"}
    monkeypatch.setattr(client_keys, "parse_deployment", lambda text, where: SimpleNamespace(served_name=served[text]))
    book: Any = {name: SimpleNamespace(model_yaml=name) for name in served}
    assert client_keys.parse_models("org/Tiny, large", book) == ("large", "tiny")
    assert client_keys.parse_models("tiny,org/Tiny", book) == ("tiny",)
    with pytest.raises(InvalidError, match="no deployment is called huge; there are: tiny, large, org/Tiny"):
        client_keys.parse_models("tiny,huge", book)
    with pytest.raises(InvalidError, match="no model is named"):
        client_keys.parse_models(" , ", book)


class Gateways:
    """Stands for the hosts: remembers orders, answers what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.orders: list[tuple[list[str], dict[str, Any]]] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.broken: dict[str, set[str]] = {}
        self.view: Any = SimpleNamespace(
            current=SimpleNamespace(gateways=tuple(SimpleNamespace(name=name) for name in names)), failures=()
        )
        monkeypatch.setattr(client_keys, "run", self.run)

    def run(
        self, playbook: str, connection: object, *, hosts: Sequence[str], variables: Mapping[str, str], **_: object
    ) -> RunResult:
        assert playbook == "keys.yml"
        orders = json.loads(Path(variables["onprem_llm_order_file"]).read_text())
        assert list(orders) == list(hosts)
        order = orders[hosts[0]]
        self.orders.append((list(hosts), order))
        bad = [host for host in hosts if order["action"] in self.broken.get(host, set())]
        failures = tuple(HostFailure(host, "Keys", "disk full", False) for host in bad)
        return RunResult(tuple(hosts), {h: a for h, a in self.answers.items() if h not in bad}, {}, failures)


CONNECTION: Any = Connection(inventory=Path("inventory.ini"))


def test_only_the_hash_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    gateways = Gateways(monkeypatch, "a", "b")
    new = client_keys.NewKey("alice", ("tiny",), {"count": 60, "unit": "minute"}, NOW)
    client_keys.create(new, "sk-clear", gateways.view, CONNECTION, None)
    ((hosts, order),) = gateways.orders
    assert hosts == ["a", "b"]
    assert order["sha256"] == hashlib.sha256(b"sk-clear").hexdigest()
    assert tuple(order["key"][part] for part in ("models", "rate", "expires")) == (
        ["tiny"],
        {"count": 60, "unit": "minute"},
        NOW,
    )
    assert "sk-clear" not in json.dumps(order)


def test_a_key_that_one_gateway_could_not_take_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gateways = Gateways(monkeypatch, "a", "b")
    gateways.broken = {"b": {"create"}}
    with pytest.raises(OnpremError, match="no key was made"):
        client_keys.create(client_keys.NewKey("alice", None, None, None), "sk-x", gateways.view, CONNECTION, None)
    assert gateways.orders[1] == (["a"], {"action": "revoke", "name": "alice"})


def test_what_every_gateway_says_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gateways = Gateways(monkeypatch, "a", "b")
    gateways.broken = {"a": {"revoke"}, "b": {"revoke"}}
    with pytest.raises(InvalidError, match=r"^a, b: disk full$"):
        client_keys.revoke("alice", gateways.view, CONNECTION, None)
    gateways.broken = {"b": {"revoke"}}
    with pytest.raises(OnpremError, match="1 of 2 hosts failed while revoking the key: there it still works: b"):
        client_keys.revoke("alice", gateways.view, CONNECTION, None)


def test_usage_is_summed_over_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    gateways = Gateways(monkeypatch, "a", "b", "c")
    one = {"requests": 3, "prompt_tokens": 10, "completion_tokens": 5, "refused": 1}
    gateways.answers = {"a": {"usage": {"alice": one}}, "b": {"usage": {"alice": one, "bob": one}}}
    gateways.broken = {"c": {"usage"}}
    totals, notes = client_keys.usage(gateways.view, CONNECTION, None)
    assert totals["alice"] == {"requests": 6, "prompt_tokens": 20, "completion_tokens": 10, "refused": 2}
    assert totals["bob"] == one
    assert "disk full" in notes[0]


def test_gateways_that_differ_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gateways = Gateways(monkeypatch, "a", "b")
    key = {"models": None, "rate": None, "expires": None, "revoked": None}
    gateways.answers = {"a": {"keys": {"alice": key}}, "b": {"keys": {"alice": {**key, "revoked": 5}}}}
    keys, notes = client_keys.listed(gateways.view, CONNECTION, None)
    assert keys == {"alice": key}
    assert notes == ["b and a differ about alice: revoke and create these again"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "Alice"], "cannot be the name of a key"),
        (["create", "open-webui"], "of onprem-llm's own"),
        (["create", "alice", "--rate", "many"], "--rate 'many'"),
        (["create", "alice", "--expires", "soon"], "--expires 'soon'"),
        (["revoke", "open-webui"], "cannot be revoked"),
    ],
)
def test_bad_words_are_refused_before_a_host_is_asked(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "inventory.ini").write_text("nowhere.invalid\n")
    result = CliRunner().invoke(verbs.command, [*words, "-i", str(tmp_path / "inventory.ini")])
    assert isinstance(result.exception, UsageError)
    assert said in result.exception.message


def test_a_row_says_what_a_key_is() -> None:
    key = {"models": ["tiny"], "rate": {"count": 60, "unit": "minute"}, "expires": NOW - 1, "created": NOW,
           "created_by": "me@here", "revoked": None, "internal": False}  # fmt: skip
    end, made = client_keys.moment(NOW - 1), client_keys.moment(NOW)
    assert verbs._row("alice", key, NOW) == ("alice", "tiny", "60/minute", end, made, "me@here", "expired")
    assert verbs._row("alice", {**key, "expires": None}, NOW)[-1] == "valid"
    assert verbs._row("alice", {**key, "revoked": NOW}, NOW)[-1] == "revoked"
    assert verbs._row("open-webui", {**key, "expires": None, "internal": True}, NOW)[-1] == "internal"


def test_a_key_whose_making_was_stopped_is_named_and_never_revoked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateways, asked = Gateways(monkeypatch, "a", "b"), []

    def stopped(*_: object, **__: object) -> RunResult:
        asked.append("run")
        raise KeyboardInterrupt

    monkeypatch.setattr(client_keys, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        client_keys.create(client_keys.NewKey("alice", None, None, None), "sk-x", gateways.view, CONNECTION, None)
    assert "alice may have been made" in capsys.readouterr().err
    assert asked == ["run"]
