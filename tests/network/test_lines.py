"""What is planted on a line is measured: its rate, its delay, its largest packet, a port that is shut, a dead host."""

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fanout_net import Net, _ip, _run

from .kit import ENGINE_PORTS, PORT, SPEED_PORT, Hosts, link

RATE = 200


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with Net(3, RATE, tmp_path) as net:
        made = Hosts(net, tmp_path)
        yield made
        made.stop()


def near(found: float, wanted: float, part: float = 0.15) -> bool:
    return abs(found - wanted) < part * wanted


def test_each_line_is_measured_both_ways(hosts: Hosts) -> None:
    pairs = hosts.start().done()
    assert sorted(pairs) == [(0, 1), (0, 2), (1, 2)]
    for (one, other), pair in pairs.items():
        assert pair.get("error") is None, pair
        for start, end in ((one, other), (other, one)):
            found = link(pair, start)
            assert found["to"] == end
            assert near(found["rate"], RATE * 1e6), found
            assert found["mtu"] == 1500
            assert found["device"]["name"] == "eth0"
            assert found["device"]["speed"] is None  # a veth tells 10000
            assert found["blocked"] == []
            assert set(ENGINE_PORTS) < set(found["tried"])
        assert 0 < pair["rtt_median"] <= pair["rtt_worst"] < 1
        # One clock: what is measured between them is within the bound that is told.
        assert abs(pair["offset"]) <= pair["bound"] < 0.1
    assert hosts.status(0)["host"]["iperf3"] is True


def test_a_line_that_is_slow_in_one_direction(hosts: Hosts) -> None:
    # What host 2 sends is held to 20 Mbit/s; what comes to it is not.
    slow = "root tbf rate 20mbit burst 192kb limit 1mb"
    _run(["tc", "-n", hosts.net.name(2), "qdisc", "replace", "dev", "eth0", *slow.split()])
    pairs = hosts.start().done()
    assert near(link(pairs[0, 2], 0)["rate"], RATE * 1e6)
    assert near(link(pairs[0, 2], 2)["rate"], 20e6)
    assert near(link(pairs[1, 2], 2)["rate"], 20e6, 0.3)
    assert near(link(pairs[0, 1], 0)["rate"], RATE * 1e6)


def test_the_largest_packet_is_found_each_way_to_the_byte(hosts: Hosts) -> None:
    tag = hosts.net.name(0).rpartition("-")[0]
    for number in range(3):
        _ip(f"-n {hosts.net.name(number)} link set eth0 mtu 9000")
        _ip(f"-n {tag}-sw link set p{number} mtu 9000")
    _ip(f"-n {tag}-sw link set br0 mtu 9000")
    # A port of the switch that was forgotten: nobody is told that packets get lost.
    _ip(f"-n {tag}-sw link set p2 mtu 4321")
    pairs = hosts.start().done()
    assert {link(pairs[0, 1], rank)["mtu"] for rank in (0, 1)} == {9000}
    assert link(pairs[0, 2], 0)["mtu"] == link(pairs[1, 2], 1)["mtu"] == 4321
    # What comes in there may have four bytes more, for a VLAN's tag.
    assert link(pairs[0, 2], 2)["mtu"] == link(pairs[1, 2], 2)["mtu"] == 4325
    assert link(pairs[1, 2], 1)["device"]["mtu"] == 9000


def test_a_port_that_is_shut_is_named_with_its_way(hosts: Hosts) -> None:
    hosts.in_host(1, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "7601:7602", "-j", "DROP")
    refuse = "iptables -A INPUT -p tcp --dport 7603 -j REJECT --reject-with tcp-reset"
    hosts.in_host(1, *shlex.split(refuse))
    pairs = hosts.start().done()
    shut = [[7601, "no answer"], [7602, "no answer"], [7603, "refused"]]
    assert link(pairs[0, 1], 0)["blocked"] == shut
    assert link(pairs[0, 1], 1)["blocked"] == []
    assert link(pairs[1, 2], 2)["blocked"] == shut
    assert link(pairs[0, 2], 0)["blocked"] == []


def test_a_host_that_dies_in_the_middle_costs_its_own_pairs_alone(hosts: Hosts) -> None:
    hosts.start(seconds=3)
    # 0 and 2 are in the middle of their measurement, of which nobody is told: the line is cut, as with no power.
    hosts.until(lambda: _busy(hosts, 0), 20)
    hosts.net.cut(2)
    pairs = hosts.done(0, 1)
    assert pairs[0, 1].get("error") is None
    assert near(link(pairs[0, 1], 0)["rate"], RATE * 1e6)
    # Their pair was the second round of three: 1 and 2 had met before, 0 and 1 did after.
    assert pairs[1, 2].get("error") is None
    broken = pairs[0, 2]
    assert broken.get("error") or any(one.get("error") for one in broken["links"]), broken


def _busy(hosts: Hosts, rank: int) -> bool:
    return "iperf3" in hosts.in_host(rank, "sh", "-c", f"ss -Htnp 'dport = :{SPEED_PORT} or sport = :{SPEED_PORT}'")


def test_one_that_never_began_is_waited_for_and_passed_by(hosts: Hosts) -> None:
    pairs = hosts.start(0, 1).done()
    assert link(pairs[0, 1], 1)["rate"] > 0
    assert "refused" in pairs[0, 2]["unmet"]
    assert "refused" in next(one for one in hosts.status(1)["pairs"] if one["b"] == 2)["unmet"]


def test_a_stranger_is_not_measured_with(hosts: Hosts) -> None:
    hosts.start(0, 1)
    hosts.start(2, secret="7" * 64)
    pairs = hosts.done()
    assert link(pairs[0, 1], 0)["rate"] > 0
    assert "does not know this run's secret" in pairs[0, 2]["unmet"] or "ended" in pairs[0, 2]["unmet"]


def test_nothing_listens_but_while_it_is_used(hosts: Hosts) -> None:
    hosts.start().done()
    listening = hosts.in_host(1, "ss", "-Htlun").split("\n")
    at = sorted({line.split()[4] for line in listening if line.strip()})
    assert at == [f"{hosts.net.address(1)}:{PORT}"]
    hosts.stop()
    time.sleep(0.2)
    assert hosts.in_host(1, "ss", "-Htlun").strip() == ""
