"""Each fault of a card is said in one line, with its level and its remedy: a healthy machine with one thing changed."""

from types import ModuleType
from typing import Any

import pytest

from .conftest import Load
from .gpu_host import bad, by_check, case, facts

FIRST = "GPU 0 (0000:18:00.0)"


@pytest.fixture
def cards(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check_cards")


@pytest.fixture
def check(load: Load) -> ModuleType:
    return load("gpu_check/gpu_check")


# What is changed of the first of two H100: element and text; what is said then.
FAULTS = {
    "uncorrected": (
        ("<volatile>\n\t\t\t\t<sram_correctable>0", "<dram_uncorrectable>0", "<dram_uncorrectable>3"),
        ("gpu_memory", "error", f"uncorrected memory errors: {FIRST}: 3 since the driver was loaded"),
    ),
    "sram": (
        ("", "<sram_threshold_exceeded>No", "<sram_threshold_exceeded>Yes"),
        ("gpu_memory", "error", f"{FIRST}: too many uncorrected SRAM errors (threshold exceeded)"),
    ),
    "remapping failed": (
        ("", "<remapped_row_failure>No", "<remapped_row_failure>Yes"),
        ("gpu_memory", "error", f"{FIRST}: row remapping has failed"),
    ),
    "remapping pending": (
        ("", "<remapped_row_pending>No", "<remapped_row_pending>Yes"),
        ("gpu_memory", "warning", f"{FIRST}: a row is to be remapped"),
    ),
    "ecc changes": (
        ("", "<pending_ecc>Enabled", "<pending_ecc>Disabled"),
        ("gpu_ecc", "warning", f"{FIRST}: Enabled now, Disabled after a reboot"),
    ),
    "reset": (
        ("", "<reset_required>No", "<reset_required>Yes"),
        ("gpu_reset", "error", f"{FIRST}: the driver asks for: reset"),
    ),
    "power is ERR!": (
        ("", "<power_draw>70.00 W", "<power_draw>ERR!"),
        ("gpu_readings", "error", f"{FIRST}: cannot read power_draw"),
    ),
    "temperature unknown": (
        ("", "<gpu_temp>33 C", "<gpu_temp>[Unknown Error]"),
        ("gpu_readings", "error", f"{FIRST}: cannot read gpu_temp"),
    ),
    "heat": (
        ("", "hw_thermal_slowdown>Not Active", "hw_thermal_slowdown>Active"),
        ("throttling", "warning", f"{FIRST}: slowed by heat now (33 C)"),
    ),
    "power brake": (
        ("", "hw_power_brake_slowdown>Not Active", "hw_power_brake_slowdown>Active"),
        ("throttling", "warning", f"{FIRST}: slowed by the power brake now"),
    ),
    "power limit": (
        ("", "<current_power_limit>700.00 W", "<current_power_limit>450.00 W"),
        ("power_limit", "warning", f"{FIRST}: limited to 450 W of 700 W"),
    ),
    "lanes": (
        ("", "<current_link_width>16x", "<current_link_width>4x"),
        ("pcie", "warning", f"{FIRST}: 4 of 16 PCIe lanes"),
    ),
    "fabric": (
        ("", "<state>Completed", "<state>In Progress"),
        ("fabric", "error", f"{FIRST}: the NVSwitch fabric is not ready (In Progress)"),
    ),
    "mig changes": (
        ("", "<pending_mig>Disabled", "<pending_mig>Enabled"),
        ("mig", "warning", f"{FIRST}: MIG Disabled now, Enabled after a reset"),
    ),
    "compute mode": (
        ("", "<compute_mode>Default", "<compute_mode>Prohibited"),
        ("compute_mode", "error", f"{FIRST}: compute mode Prohibited"),
    ),
    "persistence": (
        ("", "<persistence_mode>Enabled", "<persistence_mode>Disabled"),
        ("persistence", "warning", f"{FIRST}: persistence mode off"),
    ),
}  # fmt: skip


def changed(cards: ModuleType, name: str, after: str, old: str, new: str) -> dict[str, Any]:
    """Return a case with the first `old` that stands behind `after` replaced."""
    from .gpu_host import CASES

    text = (CASES / f"{name}.xml").read_text()
    begin = text.index(after)
    at = text.index(old, begin)
    found: dict[str, Any] = cards.parsed(text[:at] + new + text[at + len(old) :])
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_said_in_one_line(cards: ModuleType, check: ModuleType, fault: str) -> None:
    (after, old, new), (name, level, found) = FAULTS[fault]
    findings = check.findings_of(facts(changed(cards, "h100", after, old, new)))
    assert bad(findings) == [(name, level)]
    [one] = [one for one in findings if one["level"] != "ok"]
    assert one["found"] == found
    assert "\n" not in one["found"]
    assert one["remedy"]


def test_all_cards_with_the_same_fault_are_one_line(cards: ModuleType, check: ModuleType) -> None:
    seen = case(cards, "h100", {"<persistence_mode>Enabled": "<persistence_mode>Disabled"})
    seen["gpus"].append({**seen["gpus"][0], "index": 2, "uuid": "GPU-3", "bus_id": "0000:3a:00.0"})
    [one] = by_check(check.findings_of(facts(seen)))["persistence"]
    assert one["found"] == "all 3 GPUs: persistence mode off"


def test_old_cards_retire_pages(cards: ModuleType, check: ModuleType) -> None:
    seen = case(cards, "t4", {"<pending_blacklist>No": "<pending_blacklist>Yes"})
    assert ("gpu_memory", "warning") in bad(check.findings_of(facts(seen)))


def test_errors_of_the_past_that_were_dealt_with_are_no_worry(cards: ModuleType, check: ModuleType) -> None:
    seen = changed(cards, "h100", "<aggregate>", "<dram_uncorrectable>0", "<dram_uncorrectable>2")
    [one] = by_check(check.findings_of(facts(seen)))["gpu_memory"]
    assert (one["level"], one["found"]) == ("ok", f"ECC on; uncorrected errors, dealt with: {FIRST}: 2 in its life")


def test_seconds_that_a_card_was_slowed(cards: ModuleType, check: ModuleType) -> None:
    prefix = "clocks_event_reasons_counters_"
    seen = case(cards, "rtx-pro-6000", {f"<{prefix}hw_therm_slowdown>0 us": f"<{prefix}hw_therm_slowdown>34500000 us"})
    [one] = by_check(check.findings_of(facts(seen)))["throttling"]
    assert one["found"] == "GPU 0 (0000:61:00.0): slowed by heat for 34 s since the driver was loaded"
    assert "fans" in one["remedy"]


def test_partitioned_without_a_partition(cards: ModuleType, check: ModuleType) -> None:
    changes = {"<current_mig>Disabled": "<current_mig>Enabled", "<pending_mig>Disabled": "<pending_mig>Enabled"}
    [one] = by_check(check.findings_of(facts(case(cards, "h100", changes))))["mig"]
    assert (one["level"], "without an instance" in one["found"]) == ("warning", True)


def test_unlike_cards_in_one_host(cards: ModuleType, check: ModuleType) -> None:
    seen = case(cards, "h100")
    seen["gpus"].append({**case(cards, "l4")["gpus"][0], "index": 2})
    [one] = by_check(check.findings_of(facts(seen)))["gpus_alike"]
    assert one["found"] == (
        "NVIDIA H100 80GB HBM3 81559 MiB: GPU 0 (0000:18:00.0), GPU 1 (0000:2a:00.0); "
        "NVIDIA L4 23034 MiB: GPU 2 (0000:01:00.0)"
    )


def test_programs_of_others(cards: ModuleType, check: ModuleType) -> None:
    seen = case(cards, "gb10")
    [one] = by_check(check.findings_of(facts(seen)))["other_programs"]
    assert one["found"] == "GPU 0 (000f:01:00.0): /usr/local/bin/python (pid 114687, 19135 MiB)"
    ours = check.findings_of(facts(seen, owners={"114687": "+tiny-0"}))
    assert "other_programs" not in by_check(ours)
    foreign = by_check(check.findings_of(facts(seen, owners={"114687": "jupyter"})))["other_programs"]
    assert "container jupyter" in foreign[0]["found"]


LINKS = {"pairs": {"0-1": "NV18"}, "states": {"0": {"up": [0, 1], "down": []}, "1": {"up": [0, 1], "down": []}}}


def test_links(cards: ModuleType, check: ModuleType) -> None:
    seen = case(cards, "h100")

    def said(states: dict[str, Any], pairs: dict[str, str]) -> tuple[str, str]:
        [one] = by_check(check.findings_of(facts(seen, links={"pairs": pairs, "states": states})))["nvlink"]
        return one["level"], one["found"]

    well: dict[str, Any] = LINKS["states"]  # type: ignore[assignment]
    assert said(well, {"0-1": "NV18"}) == ("ok", "all 2 GPUs by NVLink, NV18")
    assert said({}, {"0-1": "PHB"}) == ("ok", "all 2 GPUs by PCIe alone, PHB")
    assert said({**well, "1": {"up": [0], "down": [1]}}, {}) == ("warning", "GPU 1 (0000:2a:00.0): NVLink 1 inactive")
    assert said({**well, "1": {"up": [], "down": []}}, {}) == (
        "error",
        "GPU 1 (0000:2a:00.0): all NVLinks are inactive",
    )
    # H100 PCIe without bridges: no card has a link, and that is how it was bought.
    assert said({"0": {"up": [], "down": []}, "1": {"up": [], "down": []}}, {"0-1": "SYS"})[0] == "ok"


def test_ways_into_containers(cards: ModuleType, check: ModuleType) -> None:
    seen = case(cards, "h100")
    uuids = [f"nvidia.com/gpu={gpu['uuid']}" for gpu in seen["gpus"]]

    def said(
        cdi: list[str], runtimes: list[str], *, on: bool | None = True, gone: tuple[str, ...] = ()
    ) -> list[tuple[str, str, str]]:
        access = {"engine": True, "error": None, "runtimes": runtimes, "cdi": cdi, "cdi_on": on, "containers": []}
        access["cdi_missing"] = list(gone)
        found = by_check(check.findings_of(facts(seen, access=access)))
        return [(one["check"], one["level"], one["found"]) for one in found["gpu_access"] + found.get("cdi", [])]

    nothing = "neither a CDI specification nor the nvidia runtime"
    assert said([], ["runc"]) == [("gpu_access", "warning", nothing)]
    assert said([*uuids, "nvidia.com/gpu=all"], ["nvidia", "runc"]) == [
        ("gpu_access", "ok", "CDI (3 devices) and the nvidia runtime of docker")
    ]
    unused = "a CDI specification, and docker does not use it"
    assert said(uuids, ["runc"], on=False) == [("gpu_access", "warning", unused)]
    assert said(uuids, ["runc"], on=None)[0][1] == "ok"
    assert said([uuids[0], "nvidia.com/gpu=GPU-99999999-0000"], [])[1] == (
        "cdi", "warning", "the CDI specification names 1 that are gone and lacks 1 that are there",
    )  # fmt: skip
    assert said(uuids, [], gone=("/lib/libcuda.so.550.54.14", "/lib/libnvidia-ml.so.550.54.14"))[1:] == [(
        "cdi", "warning",
        "the CDI specification names /lib/libcuda.so.550.54.14 and 1 more, which the host does not have",
    )]  # fmt: skip
