"""The root beside the inventory, and which certificates are renewed, on which hosts."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from recorded_facts import host
from test_look_whole import Hosts, use

from onprem_llm.bootstrapping import Report
from onprem_llm.certificates import hand_over, plan_renewal
from onprem_llm.commands import tls
from onprem_llm.errors import UnreachableError
from onprem_llm.hosts import Current
from onprem_llm.probe import parse_current
from onprem_llm.run_events import RunResult
from onprem_llm.spec.site import parse_site

SITE = parse_site({}, "test")
NOW = 1_800_000_000.0
DAY = 86400


def test_bootstrap_takes_the_root_from_the_gateway_host() -> None:
    report = Report(("a", "b"))
    report.take(RunResult(("a", "b"), {"a": {"ca": "PEM"}, "b": {"findings": []}}, {}, ()))
    assert report.root == "PEM"


def test_the_root_is_written_once_and_never_over_another(tmp_path: Path) -> None:
    inventory, target = tmp_path / "inventory.ini", tmp_path / "onprem-llm-ca.crt"
    assert hand_over("PEM", inventory) == f"Root certificate for clients: {target}"
    assert target.read_text() == "PEM"
    assert hand_over("PEM", inventory) == f"Root certificate for clients: {target}"
    assert "another root" in hand_over("OTHER", inventory)
    assert target.read_text() == "PEM"
    assert "could not be written" in hand_over("PEM", tmp_path / "none" / "inventory.ini")


def current() -> Current:
    def certificate(days: int, *names: str) -> dict[str, Any]:
        return {"not_after": int(NOW) + days * DAY, "names": list(names)}

    first = {"ca": certificate(3000), "gateway": certificate(29, "lab-1", "10.0.0.1")}
    second = {"engine": certificate(31, "engine.lab-2")}
    return parse_current(
        {"lab-1": host("lab-1", 1, gateway=True, certificates=first), "lab-2": host("lab-2", 2, certificates=second)}
    )


def test_what_ends_within_30_days_is_renewed() -> None:
    renewal = plan_renewal(current(), "lab-1", SITE, NOW, force=False)
    assert renewal.orders == {
        "lab-1": {
            "ca_host": "lab-1",
            "force": False,
            "gateway": {"path": "/srv/onprem-llm/gateway", "names": ["lab-1", "10.0.0.1"]},
        }
    }
    assert renewal.restarts == ()
    assert [row[3] for row in renewal.rows] == ["kept: clients would need a new root", "renewed", "kept"]


def test_all_are_renewed_by_force_but_the_root() -> None:
    renewal = plan_renewal(current(), "lab-1", SITE, NOW, force=True)
    assert set(renewal.orders) == {"lab-1", "lab-2"}
    assert renewal.orders["lab-2"]["engine"] == {"secrets": "/srv/onprem-llm/secrets", "names": ["engine.lab-2"]}
    assert renewal.restarts == ("lab-2",)


def test_a_given_certificate_is_the_sites_to_renew() -> None:
    files = {"mode": "files", "certificate": "/c", "key": "/k"}
    site = parse_site({"gateway": {"tls": files}}, "test")
    renewal = plan_renewal(current(), "lab-1", site, NOW, force=True)
    assert "gateway" not in renewal.orders.get("lab-1", {})
    assert any("replace its files" in row[3] for row in renewal.rows)


def with_registry(days: int, *, state: str = "running", written: int | None = None) -> Current:
    """The gateway host with a registry that has run for a day."""
    started = datetime.fromtimestamp(NOW - DAY, UTC).isoformat()
    container = {"id": "r1", "name": "registry-registry-1", "state": state, "labels": {}, "started_at": started}
    project = {"path": "/data/llm/registry", "files": {}, "containers": [container]}
    found = {"not_after": int(NOW) + days * DAY, "names": ["lab-1", "10.0.0.2"], "written": written}
    made = host("lab-1", 1, gateway=True, certificates={"registry": found}, projects={"registry": project})
    return parse_current({"lab-1": made})


def test_the_registrys_is_renewed_and_it_starts_anew() -> None:
    site = parse_site({"data_root": "/data/llm"}, "test")
    renewal = plan_renewal(with_registry(29), "lab-1", site, NOW, force=False)
    order = {"path": "/data/llm/registry", "names": ["lab-1", "10.0.0.2"]}
    assert renewal.orders == {"lab-1": {"ca_host": "lab-1", "force": False, "registry": order}}
    assert renewal.restarts == ()
    assert [row[3] for row in renewal.rows] == ["renewed; the registry starts anew"]
    kept = plan_renewal(with_registry(31), "lab-1", site, NOW, force=False)
    assert (kept.orders, [row[3] for row in kept.rows]) == ({}, ["kept"])


def test_a_registry_that_was_not_started_anew_is_by_the_next_run() -> None:
    """A run was killed between the new certificate and the start: nothing else would notice until the old one ends."""
    behind = with_registry(800, written=int(NOW))
    renewal = plan_renewal(behind, "lab-1", SITE, NOW, force=False)
    assert "registry" in renewal.orders["lab-1"]
    assert [row[3] for row in renewal.rows] == ["kept; the registry, which has the one before, starts anew"]
    assert not plan_renewal(with_registry(800, written=int(NOW) - 2 * DAY), "lab-1", SITE, NOW, force=False).orders


def test_a_registry_that_does_not_run_is_not_started_by_a_renewal() -> None:
    renewal = plan_renewal(with_registry(29, state="exited"), "lab-1", SITE, NOW, force=True)
    assert renewal.orders == {}
    assert [row[3] for row in renewal.rows] == ["kept: no registry runs there, the next deploy renews it"]


def test_a_root_that_ends_is_said() -> None:
    renewal = plan_renewal(current(), "lab-1", SITE, NOW + 2980 * DAY, force=False)
    assert "the root itself ends soon" in renewal.notes[0]


@pytest.fixture
def renewed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[set[str]]:
    """Return the hosts of each renewal that `tls renew` has carried out."""
    (tmp_path / "inventory.ini").touch()
    monkeypatch.chdir(tmp_path)
    found: list[set[str]] = []
    monkeypatch.setattr(tls, "renew", lambda renewal, *_: found.append(set(renewal.orders)))
    return found


def lab(monkeypatch: pytest.MonkeyPatch, *off: str) -> None:
    """Three hosts with engines whose certificates have ended; the first is the gateway."""
    hosts = use(monkeypatch, Hosts(off=off))
    for name, facts in hosts.facts.items():
        facts["certificates"] = {"engine": {"not_after": 1, "names": [f"engine.{name}"]}}


def test_a_limit_finds_the_authority_on_the_gateway_host(
    monkeypatch: pytest.MonkeyPatch, renewed: list[set[str]]
) -> None:
    lab(monkeypatch)
    CliRunner().invoke(tls.command, ["renew", "--yes", "--limit", "lab-2"], catch_exceptions=False)
    assert renewed == [{"lab-1", "lab-2"}]


def test_a_silent_host_is_an_error_unless_it_is_left_out(
    monkeypatch: pytest.MonkeyPatch, renewed: list[set[str]]
) -> None:
    lab(monkeypatch, "lab-3")
    assert isinstance(CliRunner().invoke(tls.command, ["renew", "--yes"]).exception, UnreachableError)
    assert renewed == []
    CliRunner().invoke(tls.command, ["renew", "--yes", "--skip-unreachable"], catch_exceptions=False)
    assert renewed == [{"lab-1", "lab-2"}]


def test_json_has_every_certificate_and_nothing_else_is_on_stdout(
    monkeypatch: pytest.MonkeyPatch, renewed: list[set[str]]
) -> None:
    lab(monkeypatch)
    done = CliRunner().invoke(tls.command, ["renew", "--yes", "--json"], catch_exceptions=False)
    document = json.loads(done.stdout)
    ended = {"certificate": "engine", "ends": "1970-01-01", "action": "renewed"}
    assert document["certificates"] == [{"host": f"lab-{n}", **ended} for n in (1, 2, 3)]
    assert document["restarts"] == ["lab-1", "lab-2", "lab-3"]
    assert renewed == [{"lab-1", "lab-2", "lab-3"}]
