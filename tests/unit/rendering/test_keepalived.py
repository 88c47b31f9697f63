"""The shared address as keepalived reads it; the whole files are in tests/golden."""

import dataclasses

import pytest

from onprem_llm.rendering.keepalived import CONFIG, SharedAddress, draft, router_id

ONE = SharedAddress("sha256:1", "10.0.0.100", "eth0", "10.0.0.1", ("10.0.0.2",))


def config(shared: SharedAddress) -> str:
    return draft(shared).files[CONFIG]


def test_peers_are_named_and_nobody_else_is_heard() -> None:
    text = config(ONE)
    assert "unicast_src_ip 10.0.0.1\n" in text
    assert "unicast_peer {\n        10.0.0.2 min_ttl 255\n    }" in text
    assert "    check_unicast_src\n" in text  # else a peer is only somebody to send to
    assert "    unicast_ttl 255\n" in text  # else adverts by IPv6 have 64, and no gateway hears the other
    assert "auth" not in text  # VRRP 3 has none; a password there would be a pretence


def test_a_lone_host_names_nobody() -> None:
    # keepalived takes a unicast word without a peer for a mistake, and its status is not 0.
    assert "unicast" not in config(dataclasses.replace(ONE, peers=()))


def test_nobody_takes_the_address_from_one_that_serves() -> None:
    first, second = config(ONE), config(dataclasses.replace(ONE, rank=1))
    for text in (first, second):
        assert "state BACKUP" in text
        assert "nopreempt" in text
        assert "init_fail" in text  # nor takes one it whose HAProxy has not answered yet
    assert "priority 150\n" in first
    assert "priority 140\n" in second


@pytest.mark.parametrize(("address", "prefix"), [("10.0.0.100", 32), ("fd00::100", 128)])
def test_the_address_brings_no_route(address: str, prefix: int) -> None:
    assert f"        {address}/{prefix} dev eth0\n" in config(dataclasses.replace(ONE, address=address))


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.100", "255.255.255.255", "fd00::100"])
def test_router_ids_fit_a_byte(address: str) -> None:
    assert 1 <= router_id(address) <= 255


def test_two_addresses_on_one_wire_do_not_meet() -> None:
    assert router_id("10.0.0.100") != router_id("10.0.0.101")


def test_another_configuration_is_another_container() -> None:
    assert draft(ONE).digest == draft(dataclasses.replace(ONE)).digest
    for change in ({"peers": ("10.0.0.3",)}, {"interface": "eth1"}, {"address": "10.0.0.101"}, {"rank": 1}):
        assert draft(dataclasses.replace(ONE, **change)).digest != draft(ONE).digest


def test_it_may_change_addresses_and_nothing_else() -> None:
    body = draft(ONE).body
    assert body["cap_drop"] == ["ALL"]
    assert body["cap_add"] == ["NET_ADMIN", "NET_BROADCAST", "NET_RAW", "SETGID"]
    assert body["stop_signal"] == "SIGTERM"  # the image's own would not let the address go
