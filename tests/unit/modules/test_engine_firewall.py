"""The rules that keep strangers off the engines, and when they are loaded."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from .conftest import Load

RULES = """# Written by onprem-llm: which addresses reach the engines of this host.
table inet onprem_llm
delete table inet onprem_llm
table inet onprem_llm {
    chain engines {
        type filter hook prerouting priority -150; policy accept;
        iif "lo" accept
        ct direction reply accept
        ip saddr { 10.0.0.1, 10.0.0.12 } accept
        ip6 saddr { fd00::1 } accept
        tcp dport { 8000, 8001 } fib daddr type local drop
        tcp dport 8000 fib daddr oifname "br-*" iifname != "br-*" drop
    }
}
"""


class Host:
    """A host's files and what its nft was asked."""

    def __init__(self, module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nft = importlib.import_module("ansible.module_utils.onprem_llm_nft")
        self.asked: list[tuple[str, ...]] = []
        self.loaded = False
        self.refuses = ""
        for name in ("rules", "unit", "wanted_by"):
            monkeypatch.setattr(module.GUARD, name, folder / name / "file")
        monkeypatch.setattr(nft, "run", self.run)
        monkeypatch.setattr(nft, "tool", lambda: "nft")
        monkeypatch.setattr(nft.shutil, "which", lambda *_, **__: "nft")

    def run(self, *command: str) -> tuple[int, str]:
        self.asked.append(command)
        if command[1] == "list":
            return (0 if self.loaded else 1), ""
        if command[1] == "--check" and self.refuses:
            return 1, self.refuses
        self.loaded = {"--file": True, "delete": False}.get(command[1], self.loaded)
        return 0, ""

    def changes(self) -> list[str]:
        done = [" ".join(command[:2]) for command in self.asked if command[1] != "list"]
        self.asked.clear()
        return done


@pytest.fixture
def firewall(load: Load) -> ModuleType:
    return load("engine_firewall/engine_firewall")


@pytest.fixture
def host(firewall: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(firewall, tmp_path, monkeypatch)


GANGS = [
    {"ports": [7603, 7602], "sources": ["10.0.0.5", "10.0.0.4"]},
    {"ports": [7600], "sources": ["10.0.0.4", "fd00::4"]},
]
GANG_RULES = """        ip saddr { 10.0.0.4 } tcp dport { 7600 } accept
        ip6 saddr { fd00::4 } tcp dport { 7600 } accept
        fib daddr type local tcp dport { 7600 } drop
        ip saddr { 10.0.0.4, 10.0.0.5 } tcp dport { 7602, 7603 } accept
        fib daddr type local tcp dport { 7602, 7603 } drop
        ip saddr { 10.0.0.1 } accept
"""


def test_only_its_members_reach_a_gangs_ports_and_the_gateways_do_not(firewall: ModuleType) -> None:
    assert GANG_RULES in firewall.rules_text([8000], ["10.0.0.1"], GANGS)


def test_the_whole_file(firewall: ModuleType) -> None:
    assert firewall.rules_text([8001, 8000, 8000], ["fd00::1", "10.0.0.12", "10.0.0.1"]) == RULES


def test_nobody_is_let_in_where_there_are_no_gateways(firewall: ModuleType) -> None:
    text = firewall.rules_text([8000], [])
    assert "saddr" not in text
    assert "drop" in text


def test_engines_on_loopback_alone_have_no_port_to_guard_but_their_containers_own(firewall: ModuleType) -> None:
    text = firewall.rules_text([], ["10.0.0.1"])
    assert "type local" not in text
    assert f'        tcp dport {firewall.INNER_PORT} fib daddr oifname "br-*" iifname != "br-*" drop' in text


def test_what_is_no_address_is_refused(firewall: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"1\.2\.3\.4; }"):
        firewall.rules_text([8000], ["1.2.3.4; }"])


def test_twice_changes_nothing(firewall: ModuleType, host: Host) -> None:
    assert firewall.GUARD.present(firewall.rules_text([8000], ["10.0.0.1"]), False)
    assert host.changes() == ["nft --check", "nft --file", "systemctl start"]
    assert not firewall.GUARD.present(firewall.rules_text([8000], ["10.0.0.1"]), False)
    assert host.changes() == []


def test_rules_that_somebody_flushed_come_back(firewall: ModuleType, host: Host) -> None:
    firewall.GUARD.present(firewall.rules_text([8000], ["10.0.0.1"]), False)
    host.changes()
    host.loaded = False
    assert firewall.GUARD.present(firewall.rules_text([8000], ["10.0.0.1"]), False)
    assert "nft --file" in host.changes()


def test_rules_that_nft_refuses_are_not_written(firewall: ModuleType, host: Host) -> None:
    host.refuses = "syntax error"
    with pytest.raises(firewall.FirewallError, match="syntax error"):
        firewall.GUARD.present(firewall.rules_text([8000], ["10.0.0.1"]), False)
    assert not firewall.GUARD.rules.exists()
    assert host.changes() == ["nft --check"]


def test_without_engines_everything_goes(firewall: ModuleType, host: Host) -> None:
    firewall.GUARD.present(firewall.rules_text([8000], ["10.0.0.1"]), False)
    host.changes()
    assert firewall.GUARD.absent(False)
    assert host.changes() == ["systemctl stop", "nft delete"]
    guard = firewall.GUARD
    assert not any(path.exists() or path.is_symlink() for path in (guard.rules, guard.unit, guard.wanted_by))
    assert not firewall.GUARD.absent(False)


def test_check_mode_changes_nothing(firewall: ModuleType, host: Host) -> None:
    assert firewall.GUARD.present(firewall.rules_text([8000], []), True)
    assert host.changes() == []
    assert not firewall.GUARD.rules.exists()
