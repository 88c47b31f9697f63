"""What bootstrap decides before it changes anything, and how it says what it found."""

from pathlib import Path
from typing import Any

import pytest

from onprem_llm import bootstrapping
from onprem_llm.bootstrapping import Finding, Report, base_order, check_files, choose_gateway, peers, pools_of
from onprem_llm.commands.bootstrap import as_document, ending, findings_text
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current
from onprem_llm.look import View
from onprem_llm.output import PlainProgress
from onprem_llm.probe import parse_current
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.spec.site import parse_site
from onprem_llm.ssh import Route

QUIET = PlainProgress()


def current(*names: str, gateway: str | None = None, unreachable: tuple[str, ...] = ()) -> Current:
    probes = {
        name: {"schema": 1, "ansible_host": f"10.0.0.{n}", "book": {"gateway": True} if name == gateway else None}
        for n, name in enumerate(names, 1)
    }
    return parse_current(probes, unreachable)


def inventory(monkeypatch: pytest.MonkeyPatch, **groups: tuple[str, ...]) -> None:
    ways = {name: Route(name, False, name, None, None, None, (), groups=its) for name, its in groups.items()}
    monkeypatch.setattr(bootstrapping, "routes", lambda _: ways)


@pytest.mark.parametrize(
    ("groups", "seen", "expected"),
    [
        ({"a": (), "b": ()}, current("a", "b"), ("a", True)),
        ({"a": (), "b": ("gateway",)}, current("a", "b"), ("b", True)),
        ({"a": (), "b": ()}, current("a", "b", gateway="b"), ("b", False)),
        ({"a": ("gateway",), "b": ()}, current("a", "b", gateway="b"), ("b", False)),
        ({"a": (), "b": ()}, current("b", unreachable=("a",)), (None, False)),
    ],
    ids=["the first", "of its group", "the recorded one stays", "whatever the groups say", "never a stand-in"],
)
def test_gateway(
    groups: dict[str, tuple[str, ...]], seen: Current, expected: tuple[Any, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory(monkeypatch, **groups)
    assert choose_gateway(seen, Connection(Path("/i")), QUIET) == expected


def test_a_limit_makes_no_second_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory(monkeypatch, a=(), b=())
    whole = View(current("a", "b", gateway="b"), (), "salt")
    monkeypatch.setattr(bootstrapping, "look", lambda *_: whole)
    assert choose_gateway(current("a"), Connection(Path("/i"), limit="a"), QUIET) == ("b", False)


def test_docker_must_hide_nothing_that_hosts_fetch_from() -> None:
    raw = {
        "registry": {"address": "registry.local:5000"},
        "package_mirrors": {"debian": "http://mirror.local/debian"},
        "proxy": {"https": "http://10.9.0.1:3128"},
    }
    found = peers(parse_site(raw, "x"), current("a", "b"))
    assert found == ["mirror.local", "10.9.0.1", "registry.local", "10.0.0.1", "10.0.0.2"]


def test_an_order_holds_no_secret() -> None:
    raw = {"registry": {"address": "r:1", "username": "u", "password": {"from_env": "X"}}, "data_root": "/data/llm"}
    order = base_order(parse_site(raw, "x"), [])
    assert order["registry"] == {"address": "r:1", "ca_file": None, "username": "u"}
    assert order["weights_dir"] == "/data/llm/weights"


def test_a_missing_ca_is_named_before_anything_is_done() -> None:
    with pytest.raises(InvalidError, match=r"onprem_llm_site\.extra_ca: no such file on this machine: /nix/ca\.pem"):
        check_files(parse_site({"extra_ca": "/nix/ca.pem"}, "x"))


def test_a_host_whose_networks_collide_fails_alone() -> None:
    site = parse_site({"docker": {"address_pools": [{"base": "10.200.0.0/16", "size": 24}]}}, "x")
    route = {"network": "10.200.0.0/16", "device": "eth1"}
    returned = {"a": {"network": {"routes": [route]}}, "b": {"network": {"routes": []}}}
    report = Report(("a", "b"))
    chosen = pools_of(site, RunResult(("a", "b"), returned, {}, ()), report)
    assert list(chosen) == ["b"]
    assert report.able == ["b"]
    assert "10.200.0.0/16" in report.failures[0].message
    assert "onprem_llm_site.docker.address_pools" in report.failures[0].message


def finding(host: str, check: str, level: str = "ok", remedy: str = "") -> Finding:
    return Finding(host, "role", check, level, "found", "expected", remedy)


def test_what_is_true_for_all_hosts_is_one_line() -> None:
    hosts = tuple(f"h{n}" for n in range(6))
    found = {host: (finding(host, "clock", "warning", "Set it."), finding(host, "os")) for host in hosts}
    text = findings_text(Report(hosts, findings=found), verbose=False)
    assert "6 hosts (h0 …)  clock  warning  found  expected" in text
    assert text.count("Set it.") == 1
    assert "6 more checks passed" in text
    assert "os" in findings_text(Report(hosts, findings=found), verbose=True)


def test_gpus_are_always_said() -> None:
    assert "gpus" in findings_text(Report(("a",), findings={"a": (finding("a", "gpus"),)}), verbose=False)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (Report(("a",), changed={"a": 0}, gateway="a"), "Nothing changed"),
        (Report(("a", "b"), changed={"a": 3}, gateway="a"), "Changed: a.\nGateway: a."),
        (
            Report(("a",), [HostFailure("a", "t", "m", unreachable=False)], gateway="a", records_gateway=True),
            "No host was prepared.\nNo gateway is recorded yet: a must be prepared",
        ),
    ],
)
def test_ending(report: Report, words: str) -> None:
    assert words in ending(report)


def test_document() -> None:
    report = Report(("a", "b"), [HostFailure("b", "t", "m", unreachable=True)], changed={"a": 2}, gateway="a")
    document = as_document(report)
    assert document["gateway"] == "a"
    assert document["hosts"] == {
        "a": {"ok": True, "changed": 2, "findings": []},
        "b": {"ok": False, "changed": 0, "findings": []},
    }
