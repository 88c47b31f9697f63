"""A saved report against a later one: what changed is named, with what was and how bad it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onprem_llm.checks.difference import changes, not_seen
from onprem_llm.checks.report import Report, read_report
from onprem_llm.errors import InvalidError
from onprem_llm.findings import Finding
from onprem_llm.run_events import HostFailure

Change = Callable[[dict[str, Any]], None]


def gpu(index: int) -> dict[str, Any]:
    return {
        "index": index, "uuid": f"GPU-{index}", "bus_id": f"0000:{index + 1}8:00.0", "name": "NVIDIA H100",
        "ecc": "Enabled", "memory_total": 81559, "memory_used": 0, "temperature": 30, "persistence": "Enabled",
        "power_limit": 700, "mig": "Disabled", "ecc_aggregate": 0, "pcie": {"width": 16}, "retired": None,
        "remapped": {"corrected": 0, "uncorrected": 0},
    }  # fmt: skip


def facts(count: int = 4) -> dict[str, Any]:
    pairs = {f"{a}-{b}": "NV18" for a in range(count) for b in range(a + 1, count)}
    return {
        "now": 1000, "kernel": "6.1", "driver": {"version": "580.95.05", "cuda": "13.0"}, "links": {"pairs": pairs},
        "gpus": [gpu(index) for index in range(count)], "xids": [],
    }  # fmt: skip


def finding(check: str, level: str = "warning", found: str = "bad", host: str = "h") -> Finding:
    return Finding(host, "gpu_check", check, level, found, "good", "Mend it.")


def report(made: dict[str, Any], *findings: Finding) -> Report:
    return Report("2026-11-22T01:00:00Z", {"h": findings}, {"h": made})


def told(change: Change, before: Change | None = None) -> list[tuple[str, str, str, str]]:
    """Return what is said after `change` of a host with four cards."""
    old, new = facts(), facts()
    (before or (lambda _: None))(old)
    change(new)
    found = changes(report(old), report(new)).get("h", ())
    assert all(one.remedy for one in found if one.level != "ok")
    return [(one.check, one.level, one.found, one.expected) for one in found]


def test_nothing_changed() -> None:
    assert told(lambda _: None) == []


def test_what_always_differs_is_not_compared() -> None:
    assert told(lambda new: new["gpus"][0].update(temperature=80, memory_used=70000)) == []


def test_half_of_the_cards_are_missing() -> None:
    [one] = told(lambda new: new.update(gpus=new["gpus"][:2], links={"pairs": {"0-1": "NV18"}}))
    gone = "gone: NVIDIA H100 at 0000:38:00.0, NVIDIA H100 at 0000:48:00.0"
    assert one == ("gpus", "error", f"half of the GPUs are missing: 2 of 4 GPUs; {gone}", "4 GPUs")


def test_one_card_is_missing() -> None:
    [one] = told(lambda new: new.update(gpus=new["gpus"][1:], links={"pairs": {}}))
    assert one == ("gpus", "error", "3 of 4 GPUs; gone: NVIDIA H100 at 0000:18:00.0", "4 GPUs")


def test_all_cards_are_missing() -> None:
    [one] = told(lambda new: new.update(gpus=[], links={"pairs": {}}))
    assert one[:2] == ("gpus", "error")
    assert one[2].startswith("0 of 4 GPUs")


def test_another_card_in_its_place_and_a_new_one() -> None:
    def swap(new: dict[str, Any]) -> None:
        new["gpus"][0].update(uuid="GPU-new", name="NVIDIA L4")
        new["gpus"].append(gpu(7))

    assert told(swap) == [
        ("gpus", "ok", "another card: NVIDIA L4 at 0000:18:00.0", "NVIDIA H100 at 0000:18:00.0"),
        ("gpus", "ok", "new: NVIDIA H100 at 0000:88:00.0", "4 GPUs"),
    ]


FIRST = "GPU 0 (0000:18:00.0)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda new: new["driver"].update(version="590.44.01"), ("driver", "ok", "driver 590.44.01", "580.95.05")),
        (lambda new: new["driver"].update(cuda=None), ("driver", "ok", "CUDA unknown", "13.0")),
        (lambda new: new.update(kernel="6.12"), ("kernel", "ok", "6.12", "6.1")),
        (lambda new: new["gpus"][0].update(ecc="Disabled"), ("ecc", "ok", f"{FIRST}: ECC Disabled", "Enabled")),
        (lambda new: new["gpus"][0].update(mig="Enabled"), ("mig", "ok", f"{FIRST}: MIG Enabled", "Disabled")),
        (
            lambda new: new["gpus"][0].update(ecc_aggregate=2),
            ("gpu_memory", "warning", f"{FIRST}: 2 uncorrected memory errors in its life", "0"),
        ),
        (
            lambda new: new["gpus"][0].update(remapped={"corrected": 0, "uncorrected": 1}),
            ("gpu_memory", "warning", f"{FIRST}: 1 rows remapped for uncorrected errors", "0"),
        ),
        (lambda new: new["gpus"][0].update(pcie={"width": 8}), ("pcie", "warning", f"{FIRST}: 8 PCIe lanes", "16")),
        (
            lambda new: new["gpus"][0].update(power_limit=450),
            ("gpu", "ok", f"{FIRST}: power limit (W) 450", "700"),
        ),
        (
            lambda new: new["links"]["pairs"].update({"0-1": "SYS"}),
            ("nvlink", "warning", "0-1: SYS", "0-1: NV18"),
        ),
        (
            lambda new: new.update(xids=[{"kind": "Xid", "code": 31, "bus_id": "0000:18:00.0", "last": 2000}]),
            ("xid", "warning", "new: Xid 31 at 0000:18:00.0", "before"),
        ),
    ],
)  # fmt: skip
def test_one_thing_changed(change: Change, said: tuple[str, str, str, str]) -> None:
    assert told(change) == [said]


def test_more_lanes_are_good() -> None:
    assert told(lambda _: None, lambda old: old["gpus"][0].update(pcie={"width": 8}))[0][1] == "ok"


def test_an_xid_that_was_known_is_not_new() -> None:
    old = [{"kind": "Xid", "code": 31, "bus_id": "0000:18:00.0", "last": 900}]
    assert told(lambda new: new.update(xids=old)) == []


def test_findings_that_came_and_went() -> None:
    before = report(facts(), finding("persistence"), finding("fabric", "error"))
    after = report(facts(), finding("persistence"), finding("other_programs"))
    found = [(one.check, one.level, one.found, one.expected) for one in changes(before, after)["h"]]
    assert found == [("fabric", "ok", "well again", "bad"), ("other_programs", "warning", "bad", "well")]


def test_hosts_that_came_and_went() -> None:
    before = Report("t", {"a": (), "b": ()}, {"a": facts(), "b": facts()})
    after = Report("t", {"b": (), "c": ()}, {"b": facts(), "c": facts()})
    assert {host: those[0].found for host, those in changes(before, after).items()} == {"c": "not in the report before"}
    assert not_seen(before, after) == ["a"]


def test_a_report_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    made = Report("2026-11-22T01:00:00Z", {"h": (finding("xid"),)}, {"h": facts()}, (HostFailure("x", "t", "m", True),))
    path = tmp_path / "r.json"
    path.write_bytes(made.as_bytes())
    assert read_report(path) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "found no JSON"),
        ("[]", "expected a report of a check"),
        (json.dumps({"kind": "onprem-llm-facts", "hosts": {}}), "expected a report of a check"),
        (json.dumps({"kind": "onprem-llm-check", "schema": 9, "hosts": {}}), "found schema 9, expected 1"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidError, match=message) as caught:
        read_report(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    with pytest.raises(InvalidError) as caught:
        read_report(path, network=True)
    assert ("check --network --save FILE" in str(caught.value.hint)) == ("schema" not in message)


def test_a_report_with_holes_does_not_break_the_comparison() -> None:
    """Hosts without GPUs, and what an older or a mangled report lacks."""
    nothing: dict[str, Any] = {}
    assert changes(report(nothing), report(nothing)) == {}
    odd = {"gpus": [{"index": 0}, "x"], "links": None, "driver": [], "xids": [{"last": None}]}
    assert isinstance(changes(report(odd), report(facts())), dict)
