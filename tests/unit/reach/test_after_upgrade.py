"""Whether a host is well after its driver was changed."""

from typing import Any

import pytest
from upgraded_world import NEW, OLD, error_of, gpus, said

from onprem_llm.checks.after_upgrade import trouble

BEFORE = said("a", OLD)


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (said("a"), None),
        (said("a", OLD), f"found that driver {OLD} runs, expected {NEW}"),
        (said("a", driver_upgrade={"loaded": None}), f"found that no driver runs, expected {NEW}"),
        (
            said("a", gpu_check=gpus("a", 1)),
            "found half of the GPUs are missing: 1 of 2 GPUs; gone: H100 at 0000:0:00.0",
        ),
        (said("a", findings=[error_of("gpu_access")]), "found bad gpu_access, expected good. Mend it."),
        (said("a", findings=[{**error_of("gpu_access"), "level": "warning"}]), None),
    ],
)
def test_what_is_worse_than_before(after: dict[str, Any], text: str | None) -> None:
    found = trouble("a", NEW, BEFORE, after)
    assert found is None if text is None else str(found).startswith(text)


def test_what_was_bad_before_is_not_the_drivers_fault() -> None:
    bad = [error_of("ecc")]
    assert trouble("a", NEW, said("a", OLD, findings=bad), said("a", findings=bad)) is None


def of_card(number: int, expected: str = "none", count: int = 1) -> dict[str, str]:
    found = f"uncorrected memory errors: GPU {number} (0000:{number}:00.0): {count} since the driver was loaded"
    return {**error_of("gpu_memory"), "found": found, "expected": expected}


def xid(code: int) -> dict[str, str]:
    return {**error_of("xid"), "found": f"Xid {code} (it hangs) on GPU 0 (0000:0:00.0), once", "expected": "none"}


@pytest.mark.parametrize(
    ("before", "after", "bad"),
    [
        (of_card(0), of_card(0, count=3), False),
        (of_card(0), of_card(1), True),
        (of_card(0), of_card(0, "bad rows are replaced by spare ones"), True),
        ({**of_card(0), "found": "GPU 0, 1, 2: 1"}, of_card(1), False),
        ({**of_card(0), "found": "all 3 GPUs: 1"}, of_card(2), False),
        ({**of_card(0), "found": "GPU 0, 1: 1"}, of_card(2), True),
        (xid(62), xid(62), False),
        (xid(62), xid(79), True),
    ],
)
def test_an_error_is_known_where_its_cards_had_it_before(
    before: dict[str, str], after: dict[str, str], bad: bool
) -> None:
    cards = {"gpu_check": gpus("a", 0, 1, 2)}
    for card in cards["gpu_check"]["gpus"]:
        card["index"] = int(card["uuid"][-1])
    found = trouble("a", NEW, said("a", OLD, findings=[before], **cards), said("a", findings=[after], **cards))
    assert bool(found) is bad


def test_a_card_is_missed_where_the_driver_showed_none_before() -> None:
    """As an unfinished run leaves a host: nothing is loaded, so what must be there tells the PCI bus."""
    before = said("a", gpu_check={"gpus": []}, driver_upgrade={"loaded": None, "gpus": 2})
    driver = {"loaded": NEW, "gpus": 2}
    found = trouble("a", NEW, before, said("a", gpu_check=gpus("a", 1), driver_upgrade=driver))
    assert str(found).startswith("found 1 of 2 GPUs, expected every NVIDIA GPU of the PCI bus")
    assert trouble("a", NEW, before, said("a", driver_upgrade=driver)) is None
    # One that was away before is not the driver's fault.
    less = said("a", OLD, gpu_check=gpus("a", 1))
    assert trouble("a", NEW, less, said("a", gpu_check=gpus("a", 1), driver_upgrade=driver)) is None
