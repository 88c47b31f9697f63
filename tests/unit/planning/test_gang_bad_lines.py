"""Lines with faults, as check --network told the gateway's book: a replica over hosts keeps off them where it can."""

from copy import deepcopy
from itertools import combinations

import recorded_facts as made
from gang_lab import gang, hosts, placed
from planning_lab import Hosts

from onprem_llm.probe import parse_current
from onprem_llm.spec.network_facts import TRIES, joined_well

AT = "2026-11-22T05:00:00Z"


def told(facts: Hosts, *ways: tuple[str, str], why: str = "slow: 1 Gbit/s, under half of the median") -> Hosts:
    """Return the hosts with what is wrong between some of them in the gateway's book."""
    lines = [
        {"source": a, "target": b, "bits_per_second": 10**9, "mtu": 1500, "problems": [why]} for a, b in sorted(ways)
    ]
    return {**facts, "lab-1": {**facts["lab-1"], "network": {"measured_at": AT, "lines": lines}}}


def test_hosts_with_a_bad_line_between_them_are_not_put_together() -> None:
    facts = hosts(4)
    before = made.planned(facts, made.deployment(gang()))
    one, other = sorted(placed(before).values())
    # One way is enough.
    plan = made.planned(told(facts, (other, one)), made.deployment(gang()))
    found = set(placed(plan).values())
    assert len(found) == 2
    assert found != {one, other}
    assert not [text for text in plan.warnings if "lines" in text]


def test_where_all_others_are_taken_the_bad_line_is_named_and_used() -> None:
    plan = made.planned(told(hosts(2), ("lab-2", "lab-1")), made.deployment(gang()))
    assert set(placed(plan).values()) == {"lab-1", "lab-2"}
    (warning,) = [text for text in plan.warnings if "lines" in text]
    assert warning == (
        "wide-0 goes over lines with faults: lab-2 to lab-1: slow: 1 Gbit/s, under half of the median (known since "
        f"{AT} at the latest). Of the hosts that can carry it no 2 were found with good lines only. Mend them and "
        "measure again: onprem-llm check --network"
    )


def test_what_stands_stays_and_is_not_warned_of_again() -> None:
    facts = hosts(4)
    first = made.planned(facts, made.deployment(gang()))
    standing = made.applied(first, facts)
    again = made.planned(told(standing, tuple(sorted(placed(first).values()))), made.deployment(gang()))  # type: ignore[arg-type]
    assert not again.steps
    assert not [text for text in again.warnings if "lines" in text]


def test_of_many_bad_lines_three_are_named() -> None:
    text = gang(nodes=3, tensor=2, pipeline=3, gpus=6)
    ways = [(f"lab-{a}", f"lab-{b}") for a in (1, 2, 3) for b in (1, 2, 3) if a != b]
    plan = made.planned(told(hosts(3), *ways, why="not measured: refused"), made.deployment(text))
    (warning,) = [text for text in plan.warnings if "lines" in text]
    assert warning.count("not measured") == 3
    assert "and 3 more (known since" in warning


def test_three_are_found_where_the_first_two_belong_to_no_three() -> None:
    text = gang(nodes=3, tensor=2, pipeline=3, gpus=6)
    facts = hosts(4)
    first, second, third, fourth = sorted(facts)
    plan = made.planned(told(facts, (second, third), (fourth, second)), made.deployment(text))
    assert set(placed(plan).values()) == {first, third, fourth}
    assert not [text for text in plan.warnings if "lines" in text]


def test_an_update_does_not_leave_good_lines_for_bad_ones() -> None:
    facts = hosts(4)
    first = made.planned(facts, made.deployment(gang()))
    standing = made.applied(first, facts)
    weights = next(state["weights"] for state in standing.values() if state.get("weights"))
    standing = {name: {**state, "weights": deepcopy(weights)} for name, state in standing.items()}
    here = set(placed(first).values())
    there = tuple(sorted(set(facts) - here))
    text = gang().replace("8192", "4096")
    beside = made.planned(standing, made.deployment(text))
    assert set(placed(beside).values()) == set(there)
    stays = made.planned(told(standing, there), made.deployment(text))  # type: ignore[arg-type]
    assert set(placed(stays).values()) == here
    assert not [text for text in stays.warnings if "lines" in text]


def test_where_all_lines_are_bad_a_plan_does_not_search_for_ever() -> None:
    names = [f"h{number}" for number in range(200)]
    every = {frozenset(pair) for pair in combinations(names, 2)}
    asked = []

    def name(item: str) -> str:
        asked.append(item)
        return item

    assert joined_well(names, name, 8, every) == []
    assert len(asked) < 3 * TRIES


def test_a_plan_knows_which_lines_it_was_made_for() -> None:
    plain, bad = hosts(2), told(hosts(2), ("lab-1", "lab-2"))
    worse = told(hosts(2), ("lab-1", "lab-2"), why="slow: 0.5 Gbit/s, under half of the median")
    digests = [parse_current(facts).digest() for facts in (plain, bad, worse)]
    assert digests[0] != digests[1] == digests[2]


def test_what_the_book_says_in_another_version_s_words_is_not_asked() -> None:
    facts = hosts(2)
    facts["lab-1"]["network"] = {"measured": "yesterday"}
    assert parse_current(facts).network is None
