"""Judgements of host_preflight over what /proc and `ip` say."""

import pytest


@pytest.fixture
def network(role_module):
    return role_module("host_preflight_network")


@pytest.fixture
def machine(role_module):
    return role_module("host_preflight_machine")


def facts(**changes):
    return {"routes": [], "addresses": ["203.0.113.7/24"], "peers": [], "pools": None, **changes}


def level(findings):
    return [finding["level"] for finding in findings]


def test_no_collision(network):
    [finding] = network.pool_findings(facts(routes=[{"network": "0.0.0.0/0", "device": "eth0"}]), None)
    assert finding["level"] == "ok"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"routes": [{"network": "172.20.0.0/16", "device": "tun0"}]}, "a route by tun0"),
        ({"addresses": ["172.17.4.4/24"]}, "the host's address 172.17.4.4/24"),
        ({"peers": ["172.31.9.9"]}, "it talks to 172.31.9.9"),
    ],
)
def test_dockers_own_pools_collide(network, changes, why):
    [finding] = network.pool_findings(facts(**changes), None)
    assert finding["level"] == "error"
    assert why in finding["found"]
    assert "container_engine_address_pools" in finding["remedy"]


def test_pools_that_are_given_are_judged_instead(network):
    taken = facts(peers=["172.17.0.9"])
    assert level(network.pool_findings(taken, [{"base": "10.200.0.0/16", "size": 24}])) == ["ok"]
    assert level(network.pool_findings(taken, [{"base": "172.17.0.0/20", "size": 24}])) == ["error"]


def test_pools_of_daemon_json_are_judged_where_none_are_given(network):
    taken = facts(peers=["10.200.0.9"], pools=[{"base": "10.200.0.0/16", "size": 24}])
    assert level(network.pool_findings(taken, None)) == ["error"]


@pytest.mark.parametrize(
    ("field", "addresses"),
    [
        ("0100000A:D431", {"10.0.0.1"}),
        ("0100007F:D431", set()),
        ("0000000000000000FFFF00000100000A:D431", {"10.0.0.1"}),
        ("000080FE00000000FF00FC0001000000:D431", set()),
    ],
)
def test_far_ends_of_sockets(network, field, addresses):
    assert network._far_end(field) == addresses


def test_dockers_own_bridges_are_no_routes_of_the_site(network, monkeypatch):
    routes = [
        {"dst": "default", "gateway": "203.0.113.1", "dev": "eth0"},
        {"dst": "172.17.0.0/16", "dev": "docker0"},
        {"dst": "172.18.0.0/16", "dev": "br-0123456789ab"},
        {"dst": "192.168.122.0/24", "dev": "virbr0"},
        {"type": "local", "dst": "203.0.113.7", "dev": "eth0"},
    ]
    monkeypatch.setattr(network, "ssh_clients", set)
    monkeypatch.setattr(network, "_name_servers", set)
    found = network._facts(routes, [], [])
    assert [route["network"] for route in found["routes"]] == ["0.0.0.0/0", "192.168.122.0/24"]
    assert found["docker_networks"] == ["172.17.0.0/16", "172.18.0.0/16"]
    assert found["peers"] == ["203.0.113.1"]


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ('ID=debian\nVERSION_ID="13"', "ok"),
        ('ID=ubuntu\nVERSION_ID="24.04"', "ok"),
        ('ID="rocky"\nVERSION_ID="9.4"', "ok"),
        ('ID=debian\nVERSION_ID="11"', "error"),
        ("ID=debian\n# testing has no version", "error"),
        ("ID=arch", "error"),
    ],
)
def test_systems(machine, release, expected):
    assert machine._os(machine.os_release(release))["level"] == expected


def test_memory(machine):
    assert machine._memory("MemTotal:  1048576 kB", 2)["level"] == "error"
    assert machine._memory("MemTotal:  4194304 kB", 2)["level"] == "ok"


def test_old_python_and_no_root(machine):
    assert machine._python((3, 6, 8))["level"] == "error"
    assert machine._rights(1000)["level"] == "error"


def test_clock_skew(role_module):
    clock = role_module("host_preflight_clock")
    assert clock._skew(1000.0, 1030.0, 60)["level"] == "ok"
    late = clock._skew(1000.0, 1300.0, 60)
    assert late["level"] == "error"
    assert late["found"] == "300 s behind the control host's"


def test_all_errors_are_in_one_message(role_module):
    findings = role_module("host_preflight_findings")
    bad = findings.judged("memory", False, "1 GiB", "2 GiB", "Buy more.")
    warned = findings.judged("clock_sync", False, "no", "yes", "Sync.", "warning")
    text = findings.failure([bad, warned, {**bad, "check": "os"}])
    assert "memory: found 1 GiB, expected 2 GiB. Buy more." in text
    assert "os: found" in text
    assert "clock_sync" not in text
    assert findings.failure([warned]) == ""
