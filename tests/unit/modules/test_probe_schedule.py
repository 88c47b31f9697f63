"""What a host says of its schedules."""

import hashlib
import json
import time
from pathlib import Path

import pytest

from onprem_llm.schedule_state import parse_schedules

from .conftest import Load

STATE = {
    "replicas": 1, "slots": 2, "off": ["tiny-1"], "since": "2026-11-20T19:00",
    "next": {"at": "2026-11-23T07:00", "replicas": 2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "armed"), [("inactive\\nactive\\n", True), ("active\\ninactive\\n", False), ("", False)]
)
def test_files_timer_and_what_was_decided(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, armed: bool
) -> None:
    probe = load("host_probe/onprem_llm_probe_schedule")
    root, units = tmp_path / "root", tmp_path / "units"
    for name in ("big", "tiny"):
        (root / name).mkdir(parents=True)
        (root / name / "table.json").write_text(json.dumps({"order": [f"{name}-0", f"{name}-1"]}))
    (root / "tiny" / "state.json").write_text(json.dumps(STATE))
    units.mkdir()
    (units / "onprem-llm-schedule-tiny.timer").write_text("[Timer]\n")
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\nprintf '{said}'\nexit 3\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = parse_schedules(json.loads(json.dumps(probe.schedules(root, units))))
    assert found["tiny"].armed is armed
    assert found["tiny"].order == ("tiny-0", "tiny-1")
    assert found["tiny"].files == {
        "table.json": hashlib.sha256((root / "tiny/table.json").read_bytes()).hexdigest(),
        "timer": hashlib.sha256(b"[Timer]\n").hexdigest(),
    }
    decided = found["tiny"].decided
    assert decided is not None
    assert (decided.off, decided.said) == (frozenset({"tiny-1"}), "1 of 2 now, 2 at Mon 07:00")
    assert found["big"].decided is None
    assert set(found["big"].files) == {"table.json"}


def test_a_host_without_schedules_is_asked_nothing(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load("host_probe/onprem_llm_probe_schedule").schedules(tmp_path / "none", tmp_path) == {}


def test_a_hold_counts_for_its_time(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = load("host_probe/onprem_llm_probe_schedule")
    monkeypatch.setattr(probe, "RUN", tmp_path)
    assert not probe.held("tiny")
    for seconds in (60, -60):
        (tmp_path / "tiny.hold").write_text(f"{time.time() + seconds:.0f}\n")
        assert probe.held("tiny") is (seconds > 0)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "table.json").write_text("{}")
    (tmp_path / "tiny.hold").write_text(f"{time.time() + 60:.0f}\n")
    assert parse_schedules(probe.schedules(tmp_path, tmp_path))["tiny"].held


@pytest.mark.parametrize(("text", "expected"), [("0\n", "drained"), (60, "briefly"), (-60, None), ("", None)])
def test_how_schedules_rest(load: Load, tmp_path: Path, text: object, expected: str | None) -> None:
    probe = load("host_probe/onprem_llm_probe_schedule")
    for name in ("big", "tiny"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.json").write_text("{}")
    (tmp_path / ".resting").write_text(f"{time.time() + text:.0f}\n" if isinstance(text, int) else str(text))
    found = parse_schedules(probe.schedules(tmp_path, tmp_path))
    assert {one.resting for one in found.values()} == {expected}
