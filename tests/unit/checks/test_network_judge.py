"""What is said of lines between hosts, by what was measured: each fault, its hosts, figure, and what to do."""

from itertools import combinations
from typing import Any

import pytest

from onprem_llm.checks.network import document_of, network_of
from onprem_llm.checks.network_difference import lines
from onprem_llm.checks.network_judge import judge
from onprem_llm.checks.network_view import lines_text
from onprem_llm.checks.network_words import ports_text, rate_text, time_text
from onprem_llm.findings import Finding

HOSTS = ("a", "b", "c", "d")


class Site:
    """Four hosts that are well, with lines of 10 Gbit/s; tests plant one fault."""

    def __init__(self, hosts: tuple[str, ...] = HOSTS) -> None:
        clock = {"synchronized": True, "service": "chrony"}
        self.hosts: dict[str, dict[str, Any]] = {
            host: {"address": f"10.0.0.{number + 1}", "iperf3": True, "clock": clock, "error": None}
            for number, host in enumerate(hosts)
        }
        self.pairs = {
            pair: {"a": pair[0], "b": pair[1], "error": None, "rtt_median": 0.0002, "rtt_worst": 0.0009,
                   "offset": 0.0001, "bound": 0.0001, "links": [self.line(*pair), self.line(*reversed(pair))]}
            for pair in combinations(hosts, 2)
        }  # fmt: skip

    @staticmethod
    def line(source: str, target: str) -> dict[str, Any]:
        device = {"name": "eth0", "mtu": 9000, "speed": 10000}
        return {"from": source, "to": target, "rate": 9.4e9, "busy": 40.0, "again": 0, "mtu": 9000, "device": device,
                "tried": [7600, 7601, 7602, 40000], "blocked": [], "taken": []}  # fmt: skip

    def link(self, source: str, target: str) -> dict[str, Any]:
        pair = self.pairs[min(source, target), max(source, target)]
        return next(one for one in pair["links"] if one["from"] == source)

    def links(self) -> list[dict[str, Any]]:
        return [link for pair in self.pairs.values() for link in pair["links"]]

    def document(self) -> dict[str, Any]:
        return {"hosts": self.hosts, "ports": [7600, 7663], "pairs": list(self.pairs.values())}

    def bad(self) -> list[Finding]:
        found = judge(network_of(self.document()))
        assert list(found) == list(self.hosts)
        return [one for those in found.values() for one in those if one.level != "ok"]

    def only(self) -> Finding:
        (found,) = self.bad()
        assert found.remedy
        return found


@pytest.fixture
def site() -> Site:
    return Site()


def test_lines_that_are_well(site: Site) -> None:
    assert site.bad() == []
    assert judge(network_of(site.document()))["a"][0].found == "9.4 Gbit/s (median), 9.4 Gbit/s at least"


def test_a_slow_line_is_named_with_both_hosts_and_both_ways(site: Site) -> None:
    site.link("b", "c").update(rate=0.9e9, again=812)
    one = site.only()
    assert (one.host, one.check, one.level) == ("b", "slow_line", "warning")
    assert one.found == "900 Mbit/s from b to c, 9.4 Gbit/s back, 812 segments sent again"
    assert one.expected == "4.7 Gbit/s or more: half of the site's median, 9.4 Gbit/s"
    assert "ethtool -S eth0" in one.remedy


def test_a_host_whose_lines_are_all_slow_is_named_once_a_way(site: Site) -> None:
    for other in "abd":
        site.link("c", other)["rate"] = 1e9
    one = site.only()
    assert (one.host, one.check) == ("c", "slow_line")
    assert one.found.startswith("to each of a, b, d: 1 Gbit/s from c to a, 9.4 Gbit/s back")


def test_an_uneven_line(site: Site) -> None:
    site.link("a", "d")["rate"] = 5.2e9
    one = site.only()
    assert (one.host, one.check, one.level) == ("a", "uneven_line", "warning")
    assert one.found == "5.2 Gbit/s from a to d, 9.4 Gbit/s back"


def test_all_lines_far_under_their_cards_are_said_a_host(site: Site) -> None:
    for link in site.links():
        link["rate"] = 0.94e9
    found = site.bad()
    assert [(one.host, one.check, one.level) for one in found] == [(host, "line_speed", "warning") for host in HOSTS]
    assert found[0].found == "940 Mbit/s from a to b; slow to b, c, d"
    assert found[0].expected == "5 Gbit/s or more: the cards on both ends do 10 Gbit/s"


def test_a_slower_card_at_one_end_is_no_fault_and_neither_is_a_busy_processor(site: Site) -> None:
    for link in site.links():
        link["rate"] = 0.94e9
        link["device"]["speed"] = 1000
    assert site.bad() == []
    for link in site.links():
        link["device"]["speed"], link["busy"] = 100_000, 97.0
    assert site.bad() == []


def test_two_hosts_have_no_median_but_two_ways() -> None:
    site = Site(("a", "b"))
    site.link("b", "a")["rate"] = 5e9
    assert site.only().check == "uneven_line"


def test_packets_that_are_lost_for_their_size(site: Site) -> None:
    site.link("a", "c")["mtu"] = 1500
    one = site.only()
    assert (one.host, one.check, one.level) == ("a", "mtu", "error")
    assert one.found == "packets over 1500 bytes from a to c are lost"
    assert one.expected == "9000 bytes, as eth0 of a sends them"
    assert "ping -M do -s 8972 10.0.0.3" in one.remedy


def test_a_host_to_which_large_packets_are_lost_is_named_once(site: Site) -> None:
    for other in "abc":
        site.link(other, "d")["mtu"] = 1500
    one = site.only()
    assert one.host == "d"
    assert one.found == "from each of a, b, c: packets over 1500 bytes from a to d are lost"


def test_interfaces_that_are_set_differently(site: Site) -> None:
    link = site.link("b", "a")
    link["device"], link["mtu"] = {"name": "bond0", "mtu": 1500, "speed": 10000}, 1500
    one = site.only()
    assert (one.check, one.level) == ("mtu", "warning")
    assert one.found == "eth0 of a has 9000 bytes, bond0 of b 1500"


def test_a_size_that_is_not_known(site: Site) -> None:
    site.link("a", "b")["mtu"] = None
    one = site.only()
    assert (one.level, one.found) == (
        "warning", "the largest packet from a to b is not known: UDP does not get there",
    )  # fmt: skip


def test_a_shut_port_stands_at_its_host_with_the_way(site: Site) -> None:
    site.link("a", "b")["blocked"] = [[7600, "no answer"], [7601, "no answer"], [40000, "refused"]]
    one = site.only()
    assert (one.host, one.check, one.level) == ("b", "ports", "error")
    assert one.found == (
        "from a to b: TCP 7600-7601 of the engine's ports (no answer); "
        "40000 of those that the kernel gives out (refused)"
    )
    assert "ufw allow proto tcp from 10.0.0.1` on b" in one.remedy


def test_ports_that_nobody_reaches_are_said_once(site: Site) -> None:
    for other in "acd":
        site.link(other, "b")["blocked"] = [[7602, "no answer"]]
    one = site.only()
    assert one.host == "b"
    assert one.found == "from each of a, c, d: b: TCP 7602 of the engine's ports (no answer)"


def test_a_far_host(site: Site) -> None:
    site.pairs["a", "d"].update(rtt_median=0.03, rtt_worst=0.2)
    one = site.only()
    assert (one.host, one.check) == ("a", "delay")
    assert one.found == "30 ms from a to d and back, 200 ms at worst"


@pytest.mark.parametrize("count", [3, 4])
def test_a_wrong_clock_is_its_hosts(count: int) -> None:
    site = Site(HOSTS[:count])
    for (a, b), pair in site.pairs.items():
        pair["offset"] = 3.0 if b == "c" else -3.0 if a == "c" else 0.0
    site.hosts["c"]["clock"] = {"synchronized": False, "service": None}
    one = site.only()
    assert (one.host, one.check, one.level) == ("c", "clock", "warning")
    assert one.found == (
        "3 s ahead of the others (a: 3 s ± 0.1 ms); nothing keeps the clock of c, and it is not synchronized"
    )


def test_two_clocks_that_differ_are_a_pairs_and_seconds_within_the_bound_are_none() -> None:
    site = Site(("a", "b"))
    site.pairs["a", "b"]["offset"] = 60.0
    one = site.only()
    assert (one.host, one.level) == ("a", "error")
    assert one.found.startswith("a is 60 s ± 0.1 ms behind b; chrony is at work on a")
    site.pairs["a", "b"].update(offset=0.3, bound=0.25)
    assert site.bad() == []


def test_iperf3_that_is_missing_says_what_to_install(site: Site) -> None:
    site.hosts["b"]["iperf3"] = False
    for other in "acd":
        for way in (("b", other), (other, "b")):
            site.link(*way).update(rate=None)
    one = site.only()
    assert (one.host, one.check, one.level) == ("b", "bandwidth", "warning")
    assert "apt-get install iperf3" in one.remedy


def test_a_measurement_that_failed_is_said(site: Site) -> None:
    site.link("a", "b").update(rate=None, error="iperf3: unable to connect")
    assert site.only().found == "from a to b: iperf3: unable to connect"


def test_one_host_has_nobody() -> None:
    found = judge(network_of(Site(("a",)).document()))["a"]
    assert [(one.level, one.found) for one in found] == [("ok", "not measured: there is no other host")]


def status(rank: int, *pairs: dict[str, Any], state: str = "done") -> dict[str, Any]:
    host = {"iperf3": True, "clock": {"synchronized": True, "service": "chrony"}}
    return {"state": state, "host": host, "pairs": list(pairs), "rank": rank}


def test_a_host_that_was_lost_costs_its_pairs_alone() -> None:
    good = {"a": 0, "b": 1, "rtt_median": 0.1, "links": [{"from": 0, "to": 1, "rate": 5e9}, {"from": 1, "to": 0}]}
    said = {
        "a": status(0, good, {"a": 0, "b": 2, "error": "no answer in time", "links": []}),
        "b": status(1, {"a": 0, "b": 1, "answered": True, "error": None}, {"a": 1, "b": 2, "unmet": "refused"}),
        "c": {"state": "failed", "error": "no route to host"},
    }
    document = document_of(["a", "b", "c"], {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}, said, (7600, 7663))
    network = network_of(document)
    assert {(pair.a, pair.b): pair.error for pair in network.pairs} == {
        ("a", "b"): None, ("a", "c"): "it broke off: no answer in time", ("b", "c"): "b: refused",
    }  # fmt: skip
    assert network.line["a", "b"].rate == 5e9
    bad = [one for those in judge(network).values() for one in those if one.level == "error"]
    assert [(one.host, one.found) for one in bad] == [("c", "took no part: no route to host")]


def test_a_pair_that_could_not_meet_is_named(site: Site) -> None:
    site.pairs["a", "b"].update(error="a: no answer in time", links=[])
    assert site.only().found == "not measured with b: a: no answer in time"
    site.pairs["a", "c"].update(error="a: no answer in time", links=[])
    site.pairs["a", "d"].update(error="a: no answer in time", links=[])
    assert site.only().found == "measured with none of b, c, d: a: no answer in time"


def test_what_became_slower_since_is_told_under_any_threshold(site: Site) -> None:
    before = site.document()
    now = Site()
    now.link("a", "b")["rate"] = 6e9
    now.link("c", "d")["rate"] = 18e9
    found = lines(before, now.document())
    assert [(one.host, one.level, one.found, one.expected) for those in found.values() for one in those] == [
        ("a", "warning", "6 Gbit/s to b", "9.4 Gbit/s"), ("c", "ok", "18 Gbit/s to d", "9.4 Gbit/s"),
    ]  # fmt: skip


def test_the_table_begins_with_the_slowest_and_counts_the_rest() -> None:
    site = Site(tuple(f"h{number}" for number in range(7)))
    site.link("h3", "h5")["rate"] = 1e6
    text = lines_text(site.document(), verbose=False)
    assert text.splitlines()[1].split()[:4] == ["h3", "h5", "1", "Mbit/s"]
    assert "6 more pairs are faster; --verbose shows them." in text
    assert "more pairs" not in lines_text(site.document(), verbose=True)


def test_figures_as_people_read_them() -> None:
    rates = [rate_text(one) for one in (9.414e9, 941.2e6, 123e9, 5e3)]
    assert rates == ["9.41 Gbit/s", "941 Mbit/s", "123 Gbit/s", "5 kbit/s"]
    assert [time_text(one) for one in (0.000123, 0.25, 3.21, 4000)] == ["0.12 ms", "250 ms", "3.21 s", "4000 s"]
    assert ports_text([7603, 7601, 7600, 40000]) == "7600-7601, 7603, 40000"
