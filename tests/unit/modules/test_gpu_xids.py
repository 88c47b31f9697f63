"""What is said of Xids: newest first, with what they mean, by NVIDIA's catalogue; how bad depends on what and when."""

import time
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load
from .gpu_host import by_check, case, facts

NOW = 1_764_000_000


@pytest.fixture
def check(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check")


@pytest.fixture
def seen(load: Load) -> dict[str, Any]:
    return case(load("gpu_check/gpu_check_cards"), "h100")


def xid(code: int, ago: float = 60, **changes: Any) -> dict[str, Any]:
    known = {
        "kind": "Xid",
        "code": code,
        "bus_id": "0000:2a:00.0",
        "count": 1,
        "last": NOW - ago,
        "text": "",
        "fatal": None,
    }
    return {**known, **changes}


def said(check: ModuleType, seen: dict[str, Any], *xids: dict[str, Any]) -> list[tuple[str, str]]:
    findings = by_check(check.findings_of(facts(seen, xids=list(xids))))["xid"]
    assert all(one["remedy"] for one in findings if one["level"] != "ok")
    return [(one["level"], one["found"]) for one in findings]


def test_none(check: ModuleType, seen: dict[str, Any]) -> None:
    assert said(check, seen) == [("ok", "no Xid since boot")]


def test_what_it_means_and_where(check: ModuleType, seen: dict[str, Any]) -> None:
    stamp = time.strftime("%Y-%m-%d %H:%M", time.gmtime(NOW - 60))
    assert said(check, seen, xid(79)) == [
        ("error", f"Xid 79 (GPU has fallen off the bus) on GPU 1 (0000:2a:00.0), once, last {stamp} UTC")
    ]
    assert said(check, seen, xid(31, count=3, bus_id="0000:99:00.0")) == [
        ("warning", f"Xid 31 (GPU memory page fault) at 0000:99:00.0, 3 times, last {stamp} UTC")
    ]


@pytest.mark.parametrize(
    ("code", "level"),
    # By the catalogue's immediate action: RESTART_APP, RESET_GPU, RESTART_BM, IGNORE, the two workflows.
    [(13, "warning"), (94, "warning"), (46, "error"), (62, "error"), (64, "error"), (95, "error"), (119, "error"),
     (140, "error"), (48, "error"), (74, "error"), (79, "error"), (43, "ok"), (45, "ok"), (63, "warning"),
     (999, "warning")],
)  # fmt: skip
def test_how_bad_it_is(check: ModuleType, seen: dict[str, Any], code: int, level: str) -> None:
    assert said(check, seen, xid(code))[0][0] == level


def test_what_is_older_than_a_day_has_been_lived_with(check: ModuleType, seen: dict[str, Any]) -> None:
    assert [level for level, _ in said(check, seen, xid(79, 90_000), xid(13, 90_000))] == ["warning", "ok"]


def test_many_kinds_are_counted(check: ModuleType, seen: dict[str, Any]) -> None:
    found = said(check, seen, *(xid(code) for code in (13, 31, 32, 39, 40, 41, 69)))
    assert len(found) == 5
    assert found[-1][1].endswith("and 2 more kinds: `journalctl -k | grep Xid`")


def test_switches_report_too(check: ModuleType, seen: dict[str, Any]) -> None:
    fatal = xid(20034, kind="SXid", fatal=True, text="Link 30 LTSSM Fault Up")
    [(level, found)] = said(check, seen, fatal)
    assert (level, found.startswith("SXid 20034 (Link 30 LTSSM Fault Up)")) == ("error", True)


def test_a_log_that_cannot_be_read_is_not_a_good_one(check: ModuleType, seen: dict[str, Any]) -> None:
    [one] = by_check(check.findings_of(facts(seen, log_read=False)))["xid"]
    assert (one["level"], one["found"]) == ("warning", "the kernel's log cannot be read")


def test_the_catalogue(load: Load) -> None:
    part = load("gpu_check/gpu_check_xids")
    for code in part.XIDS:
        description, level, remedy = part.meaning(code)
        assert description
        assert level in {"ok", "warning", "error"}
        assert bool(remedy) == (level != "ok")
