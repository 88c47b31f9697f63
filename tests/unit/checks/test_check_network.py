"""`onprem-llm check --network`: who is asked what, what is left after Ctrl-C, what is saved; hosts are stood in for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.checks.test_network_judge import Site

from onprem_llm import checking, networking
from onprem_llm.errors import ExitCode, InvalidError, OnpremError
from onprem_llm.main import cli
from onprem_llm.run_events import HostFailure, RunResult


class Hosts:
    """What hosts answer to each playbook; remembers the orders."""

    def __init__(self, *names: str) -> None:
        self.site, self.names = Site(names), names
        self.addresses = {name: f"10.0.0.{number + 1}" for number, name in enumerate(names)}
        self.listeners: list[dict[str, Any]] = []
        self.failures: tuple[HostFailure, ...] = ()
        self.raises: BaseException | None = None
        self.orders: list[Mapping[str, Any]] = []
        self.secrets: list[object] = []
        self.gateway: str | None = None
        self.kept: dict[str, Any] | None = None  # in the gateway's book
        self.untold: HostFailure | None = None
        self.more: dict[str, dict[str, Any]] = {}  # what a host's probe says besides

    def run(self, playbook: str, connection: object, **options: Any) -> RunResult:
        if playbook == "check.yml":
            return self.result({name: {"findings": [], "gpu_check": {}} for name in self.names})
        if playbook == "probe.yml":
            return self.result({name: {"probe": self.probe(name)} for name in self.names})
        if playbook == "network_keep.yml":
            assert options["hosts"] == [self.gateway]
            if self.untold:
                return RunResult((self.gateway,), {}, {}, (self.untold,))
            orders = json.loads(Path(options["variables"]["onprem_llm_order_file"]).read_text())
            self.kept = orders[self.gateway]["network"]
            return RunResult((self.gateway,), {}, {}, ())
        assert playbook == "network.yml"
        self.orders.append(json.loads(Path(options["variables"]["onprem_llm_order_file"]).read_text()))
        self.secrets.append(options.get("secrets"))
        if self.raises and next(iter(self.orders[-1].values()))["do"] == "measure":
            raise self.raises
        lost = {one.host for one in self.failures}
        said = {name: {"network_check": self.status(rank)} for rank, name in enumerate(self.names) if name not in lost}
        return RunResult(self.names, said, {}, self.failures)

    def result(self, returned: Mapping[str, dict[str, Any]]) -> RunResult:
        return RunResult(tuple(returned), returned, {}, ())

    def probe(self, name: str) -> dict[str, Any]:
        address = self.addresses[name]
        found = {"schema": 2, "ansible_host": address, "addresses": [address], "listeners": self.listeners, "site": {}}
        found |= self.more.get(name, {})
        return {**found, "book": {"gateway": True}, "network": self.kept} if name == self.gateway else found

    def status(self, rank: int) -> dict[str, Any]:
        number = {name: place for place, name in enumerate(self.names)}
        pairs = []
        for (a, b), pair in self.site.pairs.items():
            links = [{**one, "from": number[one["from"]], "to": number[one["to"]]} for one in pair["links"]]
            if number[a] == rank:
                pairs.append({**pair, "a": number[a], "b": number[b], "links": links})
        return {"state": "done", "done": 1, "total": 1, "host": self.site.hosts[self.names[rank]], "pairs": pairs}


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts("a", "b", "c")
    monkeypatch.setattr(checking, "run", made.run)
    monkeypatch.setattr(networking, "run", made.run)
    return made


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    Path("inventory.ini").write_text("a\nb\nc\n")

    def run(*words: str, code: ExitCode = ExitCode.OK) -> Result:
        done = CliRunner().invoke(cli, ["check", "inventory.ini", "--no-trial", *words])
        found = int(done.exception.exit_code) if isinstance(done.exception, OnpremError) else done.exit_code
        assert found == code, (done.output, done.exception)
        return done

    return run


def test_lines_that_are_well_are_shown(hosts: Hosts, check: Any) -> None:
    shown = check("--network").stdout
    assert "BETWEEN" in shown
    assert "9.4 Gbit/s" in shown
    assert "3 hosts: 3 well." in shown


def test_each_host_is_told_its_partners_and_two_free_ports(hosts: Hosts, check: Any) -> None:
    hosts.listeners = [{"address": "10.0.0.1", "port": 7570}]
    check("--network", "--seconds", "7")
    (order,) = hosts.orders
    programs = {name: one["program"] for name, one in order.items()}
    assert {one["do"] for one in order.values()} == {"measure"}
    assert {(one["port"], one["speed_port"], one["seconds"]) for one in programs.values()} == {(7571, 7572, 7)}
    assert programs["a"]["ports"] == list(range(7600, 7664))
    assert [programs[name]["rounds"] for name in "abc"] == [[None, 2, 1], [2, None, 0], [1, 0, None]]
    # A pair's longest time for each round, and that hosts may begin late: what is forgotten ends by itself.
    assert programs["a"]["limit"] == 3 * (60 + 10 + 14) + 60
    assert len(hosts.secrets[0]["onprem_llm_secrets"]["network_check"]) == 64  # type: ignore[index]


def test_a_shut_port_is_an_error(hosts: Hosts, check: Any) -> None:
    hosts.site.link("a", "b")["blocked"] = [[7610, "no answer"]]
    shown = check("--network", code=ExitCode.FAILED).stdout
    assert "from a to b: TCP 7610 of the engine's ports (no answer)" in shown
    assert "ufw allow proto tcp from 10.0.0.1` on b" in shown


def test_a_host_that_was_lost_is_named_and_the_others_are_shown(hosts: Hosts, check: Any) -> None:
    hosts.failures = (HostFailure("c", "Measure", "no route to host", unreachable=True),)
    shown = check("--network", code=ExitCode.UNREACHABLE).stdout
    assert "took no part: no route to host" in shown
    assert "9.4 Gbit/s" in shown


def test_ctrl_c_stops_it_on_every_host(hosts: Hosts, check: Any) -> None:
    hosts.raises = KeyboardInterrupt()
    CliRunner().invoke(cli, ["check", "inventory.ini", "--no-trial", "--network"])
    measured, stopped = hosts.orders
    assert {host: one["do"] for host, one in stopped.items()} == dict.fromkeys("abc", "stop")
    assert {one["run"] for one in stopped.values()} == {one["run"] for one in measured.values()}


def test_a_saved_report_knows_which_line_became_slower(hosts: Hosts, check: Any) -> None:
    check("--network", "--save", "monday.json")
    hosts.site.link("a", "c")["rate"] = 6e9
    shown = check("--network", "--against", "monday.json").stdout
    assert "6 Gbit/s to c" in shown
    document = json.loads(check("--network", "--against", "monday.json", "--json").stdout)
    assert [one["check"] for one in document["changes"]["a"]] == ["line"]
    assert document["network"]["pairs"][0]["links"][0]["rate"] == 9.4e9


def test_a_report_without_lines_is_no_word_about_them(hosts: Hosts, check: Any) -> None:
    hosts.site.link("a", "b")["blocked"] = [[7610, "no answer"]]
    check("--save", "monday.json")
    shown = check("--network", "--against", "monday.json", code=ExitCode.FAILED).stdout
    assert "nothing changed." in shown


def test_one_host_alone_is_said(hosts: Hosts, check: Any) -> None:
    hosts.names, hosts.site = ("a",), Site(("a",))
    assert "not measured: there is no other host" in check("--network").stdout
    assert hosts.orders == []


@pytest.mark.parametrize(("address", "problem"), [("127.0.0.1", "it is loopback"), ("10.0.0.1", "it is a's, too")])
def test_addresses_that_lead_nowhere(hosts: Hosts, check: Any, address: str, problem: str) -> None:
    hosts.addresses["b"] = address
    done = CliRunner().invoke(cli, ["check", "inventory.ini", "--no-trial", "--network"])
    assert isinstance(done.exception, InvalidError)
    assert problem in done.exception.message
    assert "ansible_host of b" in (done.exception.hint or "")


def test_seconds_want_a_network(check: Any) -> None:
    check("--seconds", "5", code=ExitCode.USAGE)


def test_the_gateway_s_book_is_told_what_is_wrong_with_lines(hosts: Hosts, check: Any) -> None:
    hosts.gateway = "b"
    hosts.site.link("a", "b")["rate"] = 4e9
    hosts.site.link("b", "c")["blocked"] = [[7610, "no answer"]]
    check("--network", code=ExitCode.FAILED)
    assert hosts.kept is not None
    assert {(line["source"], line["target"]): line["problems"] for line in hosts.kept["lines"]} == {
        ("a", "b"): ["slow: 4 Gbit/s, under half of the median"],
        ("b", "c"): ["TCP ports are shut: 7610"],
    }
    # Mended: nothing stays of it.
    hosts.site = Site(hosts.names)
    check("--network")
    assert hosts.kept["lines"] == []


def test_what_was_known_of_other_lines_stays(hosts: Hosts, check: Any) -> None:
    hosts.gateway = "a"
    known = {"source": "c", "target": "d", "bits_per_second": None, "mtu": None, "problems": ["not measured: off"]}
    # By a clock that was ahead of ours: what is measured now counts all the same.
    hosts.kept = {"measured_at": "2099-01-01T00:00:00Z", "lines": [known, {**known, "target": "b"}]}
    check("--network")
    assert hosts.kept["lines"] == [known]


def test_ports_of_a_gang_that_stands_are_not_tried(hosts: Hosts, check: Any) -> None:
    """They let in its own hosts alone: a shut port there is no fault of the line."""
    hosts.more["b"] = {"firewall": {"ports": [], "sources": [], "active": True,
                                    "gangs": [{"ports": [7600, 7601], "sources": ["10.0.0.2"]}]}}  # fmt: skip
    check("--network")
    assert {tuple(one["program"]["ports"]) for one in hosts.orders[0].values()} == {tuple(range(7602, 7664))}


def test_hosts_meet_where_gangs_do(hosts: Hosts, check: Any) -> None:
    hosts.more["b"] = {"gang_interface": "ib0", "interfaces": {"10.0.0.2": "eth0", "10.9.0.2": "ib0"}}
    check("--network")
    assert [one["address"] for one in hosts.orders[0]["a"]["program"]["hosts"]] == ["10.0.0.1", "10.9.0.2", "10.0.0.3"]
    hosts.more["b"]["gang_interface"] = "ib7"
    refused = check("--network", code=ExitCode.VALIDATION).exception
    assert str(refused) == "b: onprem_llm_gang_interface is ib7, which has no address there"


def test_a_site_without_a_gateway_is_measured_and_keeps_nothing(hosts: Hosts, check: Any) -> None:
    assert "Plans are not told of these lines: no gateway host" in check("--network").stderr
    assert hosts.kept is None


def test_a_book_that_cannot_be_told_is_an_error_beside_what_was_found(hosts: Hosts, check: Any) -> None:
    hosts.gateway, hosts.untold = "a", HostFailure("a", "Write", "No space left on device", unreachable=False)
    done = check("--network", code=ExitCode.FAILED)
    assert "9.4 Gbit/s" in done.stdout
    assert "No space left on device" in str(getattr(done.exception, "details", ""))
