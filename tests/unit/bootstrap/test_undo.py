"""What bootstrap noted, and what uninstall makes of it."""

import json

import pytest

OURS = {"live-restore": True, "features": {"cdi": True}, "log-opts": {"max-size": "5m", "max-file": "4"}}


@pytest.fixture
def undo(role_module):
    return role_module("container_engine_undo")


@pytest.fixture
def record(role_module, tmp_path, monkeypatch):
    role_module("container_engine_note")
    from ansible.module_utils import onprem_llm_record

    monkeypatch.setattr(onprem_llm_record, "RECORD", tmp_path / "state" / "bootstrap.json")
    return onprem_llm_record


def test_a_file_that_was_not_there_goes(undo):
    assert undo.settings_after(json.dumps(OURS), {"before": None, "ours": OURS}) is None


def test_a_persons_file_comes_back_to_the_letter(undo):
    before = '{"debug":true,\n "log-opts": {"max-size": "5m"}}'
    now = {**json.loads(before), **OURS}
    assert undo.settings_after(json.dumps(now), {"before": before, "ours": OURS}) == before


def test_what_a_person_changed_since_stays(undo):
    now = {**OURS, "debug": True, "log-opts": {"max-size": "9m"}}
    text = undo.settings_after(json.dumps(now), {"before": '{"log-opts": {"max-size": "5m"}}', "ours": OURS})
    assert json.loads(text) == {"debug": True, "log-opts": {"max-size": "9m"}}


def test_a_broken_file_is_refused(undo):
    with pytest.raises(undo.SettingsError):
        undo.settings_after("{", {"before": None, "ours": OURS})


SIMULATED = """Reading package lists...
Remv docker-compose [2.26.1-4]
Purg docker.io [26.1.5] [docker-buildx:amd64 ]
Remv docker-buildx [0.13]
Remv libnftables1 [1.1] (1.1 Debian:13 [amd64])
"""


def test_packages_that_others_need(undo):
    assert undo.still_needed(SIMULATED, ["docker-compose", "docker.io", "libnftables1:amd64"]) == ["docker-buildx"]
    assert undo.still_needed("", ["docker.io"]) == []


NAT = """-P PREROUTING ACCEPT
-P POSTROUTING ACCEPT
-N DOCKER
-N DOCKER_OUTPUT
-N MINE
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -i eth0 -j MINE
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.0/16 ! -o br-0123456789ab -j MASQUERADE
-A POSTROUTING -s 10.8.0.0/24 -o br-lan -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
"""


def test_dockers_rules_among_others(undo):
    rules, chains = undo.docker_rules(NAT)
    assert rules == [
        "PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "POSTROUTING -s 172.18.0.0/16 ! -o br-0123456789ab -j MASQUERADE",
    ]
    assert chains == ["DOCKER"]


def chain(table, name, policy="accept"):
    return {"chain": {"family": "ip", "table": table, "name": name, "policy": policy}}


def test_tables_that_docker_left_empty(undo):
    ruleset = {
        "nftables": [
            {"table": {"family": "ip", "name": "filter"}},
            chain("filter", "FORWARD"),
            {"table": {"family": "ip", "name": "nat"}},
            chain("nat", "PREROUTING"),
            chain("nat", "OUTPUT"),
            {"rule": {"family": "ip", "table": "nat", "chain": "OUTPUT"}},
            {"table": {"family": "ip", "name": "mine"}},
            chain("mine", "input", "drop"),
            {"table": {"family": "ip", "name": "known"}},
            chain("known", "input"),
            {"table": {"family": "ip", "name": "sets"}},
            {"set": {"family": "ip", "table": "sets", "name": "s"}},
        ]
    }
    chains, tables = undo.empty_objects(json.dumps(ruleset), ["ip known"])
    assert chains == [("ip", "filter", "FORWARD"), ("ip", "nat", "PREROUTING")]
    assert tables == [("ip", "filter")]
    assert undo.empty_objects("", []) == ([], [])


def test_notes_are_added_to_and_never_changed(record, tmp_path):
    there, gone, bare = (tmp_path / name for name in ("there", "gone", "bare"))
    (there / "x").mkdir(parents=True)
    bare.mkdir()
    paths = [str(one) for one in (there, gone, bare)]
    assert not record.RECORD.exists()
    assert record.note_absent(paths, check_mode=True)
    assert not record.RECORD.exists()
    assert record.note_absent(paths, check_mode=False)
    gone.mkdir()
    (bare / "x").touch()
    assert not record.note_absent(paths, check_mode=False)
    assert (record.load()["absent"], record.load()["empty"]) == ([str(gone)], [str(bare)])
    record.note_daemon(None, None, {"live-restore": True})
    record.note_daemon("ours by now", 0o644, {"features": {"cdi": True}})
    assert record.load()["daemon"] == {
        "before": None,
        "mode": None,
        "ours": {"live-restore": True, "features": {"cdi": True}},
    }
    assert record.RECORD.stat().st_mode & 0o777 == 0o600


def test_packages_of_a_run_that_was_cut_off_are_counted(record):
    record.begin_packages(["a"])
    record.begin_packages(["a", "docker.io"])  # the next run: the first one never came to its end
    record.end_packages(["a", "docker.io", "nftables"])
    assert record.load()["packages"] == ["docker.io", "nftables"]
    record.begin_packages(["a", "docker.io", "nftables", "theirs"])
    record.end_packages(["a", "docker.io", "nftables", "theirs", "rsync"])
    assert record.load()["packages"] == ["docker.io", "nftables", "rsync"]
    assert "packages_before" not in record.load()


def test_a_host_whose_engine_is_there_gets_the_extra_packages_alone(role_module, record, monkeypatch):
    packages = role_module("container_engine_packages")
    monkeypatch.setattr(packages.apt, "refresh", lambda mirrors: "")
    monkeypatch.setattr(packages.apt, "offered", lambda names: [name for name in names if name != "rsync"])
    monkeypatch.setattr(packages.apt, "missing", lambda names: names)
    monkeypatch.setattr(packages.apt, "installed", lambda: ["x"])
    installed = []
    monkeypatch.setattr(packages.apt, "install", installed.extend)
    options = {"engine": False, "extra": ["nftables", "rsync"], "mirrors": {}, "source": None, "min_engine": "24.0"}
    assert packages.by_apt(options, False) == ["nftables"]
    assert installed == ["nftables"]
