"""What bootstrap decides before it changes anything, and how it says what it found."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onprem_llm import gateway_choice
from onprem_llm.bootstrapping import Report, base_order, check_files, packages_of, peers, pools_of
from onprem_llm.commands.bootstrap import as_document, ending, findings_text
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.findings import Finding
from onprem_llm.gateway_choice import GatewayChoice, choose_gateway
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
        name: {"schema": 2, "ansible_host": f"10.0.0.{n}", "book": {"gateway": True} if name == gateway else None}
        for n, name in enumerate(names, 1)
    }
    return parse_current(probes, unreachable)


def inventory(monkeypatch: pytest.MonkeyPatch, **groups: tuple[str, ...]) -> None:
    ways = {name: Route(name, False, name, None, None, None, (), groups=its) for name, its in groups.items()}
    monkeypatch.setattr(gateway_choice, "routes", lambda _: ways)


LIMITED = Connection(Path("/i"), limit="a")


@pytest.mark.parametrize(
    ("groups", "seen", "expected"),
    [
        ({"a": (), "b": ()}, current("a", "b"), ("a", True)),
        ({"a": (), "b": ("gateway",)}, current("a", "b"), ("b", True)),
        ({"a": (), "b": ()}, current("a", "b", gateway="b"), ("b", False)),
        ({"a": ("gateway",), "b": ()}, current("a", "b", gateway="b"), ("b", False)),
        ({"a": (), "b": ()}, current("a", gateway="a", unreachable=("b",)), ("a", False)),
    ],
    ids=["the first", "of its group", "the recorded one stays", "whatever the groups say", "and whoever is silent"],
)
def test_gateway(
    groups: dict[str, tuple[str, ...]], seen: Current, expected: tuple[Any, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory(monkeypatch, **groups)
    assert choose_gateway(seen, Connection(Path("/i")), QUIET) == GatewayChoice(*expected)


def with_book(name: str, *others: str) -> Current:
    probes: dict[str, Any] = {host: {"schema": 2} for host in others}
    return parse_current({**probes, name: {"schema": 2, "book": {"gateway": False}}}, ())


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (current("b", unreachable=("a",)), "it would be a, which is not among the hosts that answered"),
        (current("a", unreachable=("b",)), "b did not answer and may be it"),
        (with_book("b", "a"), "b has a book"),
    ],
    ids=["never a stand-in", "a silent host may be it", "a book without the mark may be its"],
)
def test_no_second_gateway(seen: Current, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory(monkeypatch, a=(), b=())
    choice = choose_gateway(seen, Connection(Path("/i")), QUIET)
    assert (choice.name, choice.records) == (None, False)
    assert said in str(choice.note)
    assert said in ending(Report(("a", "b"), gateway_note=choice.note))


def test_a_book_of_its_own_is_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory(monkeypatch, a=(), b=())
    assert choose_gateway(with_book("a", "b"), Connection(Path("/i")), QUIET) == GatewayChoice("a", True)


@pytest.mark.parametrize(
    ("whole", "name", "records"),
    [
        (current("a", "b", gateway="b"), "b", False),
        (current("a", "b"), "a", True),
        (current("a", unreachable=("b",)), None, False),
    ],
    ids=["recorded outside of it", "nobody else is it", "a silent host outside of it may be it"],
)
def test_a_limit_makes_no_second_gateway(
    whole: Current, name: str | None, records: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory(monkeypatch, a=(), b=())
    monkeypatch.setattr(gateway_choice, "look", lambda *_: View(whole, (), "salt"))
    choice = choose_gateway(current("a"), LIMITED, QUIET)
    assert (choice.name, choice.records) == (name, records)


def test_a_limit_without_the_first_host_records_none(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory(monkeypatch, a=(), b=())
    monkeypatch.setattr(gateway_choice, "look", lambda *_: View(current("a", "b"), (), "salt"))
    choice = choose_gateway(current("b"), replace(LIMITED, limit="b"), QUIET)
    assert (choice.name, choice.records) == (None, False)


def test_the_others_of_the_group_are_gateways_too(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory(monkeypatch, c=("gateway",), a=("gateway",), b=())
    probes: dict[str, Any] = {name: {"schema": 2, "groups": ["gateway"] if name in "ac" else []} for name in "cab"}
    fresh = choose_gateway(parse_current(probes, ()), Connection(Path("/i")), QUIET)
    assert (fresh.name, fresh.records, fresh.seconds) == ("c", True, ("a",))
    # Recorded ones stay what they are, whatever the order and the groups are now.
    probes["a"] |= {"book": {"gateway": True}}
    probes["b"] |= {"book": {"second": True}}
    again = choose_gateway(parse_current(probes, ()), Connection(Path("/i")), QUIET)
    assert (again.name, again.records, again.seconds) == ("a", False, ("c", "b"))
    assert "Gateway: a, and c, b beside it." in ending(Report(("a",), gateway="a", seconds=again.seconds))


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


def test_what_the_driver_shall_be_is_in_the_order() -> None:
    order = base_order(parse_site({"nvidia_driver": {"branch": 580, "kernel_modules": "open"}}, "x"), [])
    assert order["nvidia_driver"] == {
        "install": True,
        "branch": 580,
        "kernel_modules": "open",
        "build": "auto",
        "run_file": None,
    }


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


def test_packages_come_from_the_tree_of_each_hosts_release(tmp_path: Path) -> None:
    folder = tmp_path / "packages" / "debian-13-amd64"
    (folder / "pool").mkdir(parents=True)
    (folder / "pool/a_1_all.deb").write_bytes(b"deb")
    (folder / "Packages").write_text("Package: a\nFilename: pool/a_1_all.deb\nSize: 3\nSHA256: " + "0" * 64 + "\n")
    for name in ("InRelease", "key.asc"):
        (folder / name).write_text(name)
    systems = {"a": ("debian", "13", "x86_64"), "b": ("ubuntu", "24.04", "x86_64"), "c": ("debian", "13", "aarch64")}
    returned = {
        host: {"system": dict(zip(("id", "version_id", "machine"), system, strict=True))}
        for host, system in systems.items()
    }
    report, site = Report(tuple(systems)), parse_site({"packages_dir": "packages", "data_root": "/data/llm"}, "t")

    orders = packages_of(site, tmp_path / "inventory.ini", RunResult(tuple(systems), returned, {}, ()), report)

    order: Any = orders["a"]["packages"]
    assert (order["source"], order["path"]) == (str(folder), "/data/llm/packages")
    assert order["sources_file"] == "/etc/apt/sources.list.d/onprem-llm-packages.sources"
    assert {one["path"]: one["size"] for one in order["files"]} == {
        "InRelease": 9,
        "Packages": (folder / "Packages").stat().st_size,
        "key.asc": 7,
        "pool/a_1_all.deb": 3,
    }
    assert list(orders) == ["a"]
    said = {failure.host: failure.message for failure in report.failures}
    assert "found debian-13-amd64 in" in said["b"]
    assert "expected ubuntu-24.04-amd64" in said["b"]
    assert "expected debian-13-arm64" in said["c"]


def test_without_a_folder_of_packages_no_order_has_any(tmp_path: Path) -> None:
    report = Report(("a",))
    assert packages_of(parse_site({}, "t"), tmp_path / "i", RunResult(("a",), {"a": {}}, {}, ()), report) == {}
