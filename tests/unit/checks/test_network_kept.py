"""Lines in facts: what a report's measurements become there, how files go together, what a plan asks."""

import json
from pathlib import Path

import pytest
from tests.made_facts import facts_of, host_facts
from tests.unit.checks.test_network_judge import Site

from onprem_llm.checks.network_kept import kept
from onprem_llm.checks.report import Report
from onprem_llm.errors import InvalidError
from onprem_llm.spec.facts import Facts, merge_facts, read_facts
from onprem_llm.spec.network_facts import NetworkFacts, bad_lines


def measured(site: Site, at: str = "2026-11-22T05:00:00Z") -> NetworkFacts:
    return kept(Report(at, {}, {}, network=site.document()), "monday.json")


def facts(network: NetworkFacts | None, *hosts: str) -> Facts:
    return facts_of(**{host: host_facts() for host in hosts}).model_copy(update={"network": network})


def test_a_plan_is_told_of_the_bad_lines_between_its_hosts_alone() -> None:
    site = Site()
    site.link("a", "b")["rate"] = 1e9
    site.link("b", "c")["mtu"] = 1500
    site.link("c", "d")["blocked"] = [[7600, "no answer"], [7601, "no answer"]]
    site.pairs["a", "d"].update(error="a: refused", links=[])
    network = measured(site)
    assert bad_lines(network, ["a", "b", "c"]) == (
        "a to b: slow: 1 Gbit/s, under half of the median",
        "b to c: packets over 1500 bytes are lost, 9000 are sent",
    )
    assert bad_lines(network, ["d", "c"]) == ("c to d: TCP ports are shut: 7600-7601",)
    assert bad_lines(network, ["a", "d"]) == ("a to d: not measured: a: refused", "d to a: not measured: a: refused")
    assert bad_lines(network, ["b", "d"]) == bad_lines(None, ["a", "b"]) == ()


def test_of_two_hosts_a_line_that_is_slow_one_way_is_bad() -> None:
    site = Site(("a", "b"))
    site.link("a", "b")["rate"] = 2e9
    assert bad_lines(measured(site), ["a", "b"]) == ("a to b: uneven: 2 Gbit/s, 9.4 Gbit/s the other way",)


def test_facts_keep_lines_and_are_what_they_were_without(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(facts(None, "a", "b").data)
    assert "network" not in json.loads(path.read_text())
    path.write_bytes(facts(measured(Site(("a", "b"))), "a", "b").data)
    found = read_facts(path).network
    assert found is not None
    assert [(line.source, line.target, line.bits_per_second) for line in found.lines] == [
        ("a", "b", 9_400_000_000), ("b", "a", 9_400_000_000),
    ]  # fmt: skip


def test_of_two_files_the_later_measurement_of_a_line_counts(tmp_path: Path) -> None:
    old, new = Site(("a", "b", "c")), Site(("a", "b"))
    new.link("a", "b")["blocked"] = [[7600, "refused"]]
    for name, made in {
        "1.json": facts(measured(new, "2026-11-22T06:00:00Z"), "a", "b"),
        "2.json": facts(measured(old, "2026-11-22T05:00:00Z"), "a", "b", "c"),
    }.items():
        (tmp_path / name).write_bytes(made.data)
    found = merge_facts([tmp_path / "1.json", tmp_path / "2.json"]).network
    assert found is not None
    assert len(found.lines) == 6
    assert bad_lines(found, ["a", "b", "c"]) == ("a to b: TCP ports are shut: 7600",)
    assert found.measured_at == "2026-11-22T06:00:00Z"


def test_lines_of_hosts_that_are_not_in_the_facts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_bytes(facts(measured(Site(("a", "b"))), "a").data)
    with pytest.raises(InvalidError) as refused:
        read_facts(tmp_path / "facts.json")
    said = f"{refused.value} {refused.value.details}"
    assert "found a line of 'b', expected lines between hosts of this file" in said


def test_a_report_without_lines_is_none_for_facts() -> None:
    with pytest.raises(InvalidError) as refused:
        kept(Report("2026", {}, {}), "monday.json")
    assert refused.value.message == "monday.json: found a report without lines between hosts, expected one with them"
