import pytest

from onprem_llm.planning.chain_order import chain_order

HOSTS = ["a", "b", "c", "d", "e", "f"]


def rates(slow: set[tuple[str, str]], hosts: list[str] | None = None) -> dict[str, float]:
    """Lines that are slow, as (from, to); the others are fast, but no two alike."""
    names = hosts or HOSTS
    pairs = zip([names[-1], *names[:-1]], names, strict=True)
    return {to: (10.0 if (before, to) in slow else 90.0 + number) for number, (before, to) in enumerate(pairs)}


def around(*hosts: str) -> set[tuple[str, str]]:
    ring = list(zip(HOSTS, [*HOSTS[1:], HOSTS[0]], strict=True))
    return {pair for pair in ring if set(pair) & set(hosts)}


def test_hosts_of_one_speed_stay_as_they_stand() -> None:
    assert chain_order(HOSTS, rates(set())) == HOSTS


@pytest.mark.parametrize("slow", HOSTS[1:])
def test_a_slow_host_goes_last_and_its_neighbours_stay(slow: str) -> None:
    assert chain_order(HOSTS, rates(around(slow))) == [*(host for host in HOSTS if host != slow), slow]


def test_two_slow_neighbours_are_both_slow() -> None:
    assert chain_order(HOSTS, rates(around("c", "d")))[:4] == ["a", "b", "e", "f"]


def test_the_slowest_is_the_last() -> None:
    found = {**rates(set()), "b": 20.0, "c": 20.0, "e": 5.0, "f": 5.0}
    assert chain_order(HOSTS, found) == ["a", "c", "d", "f", "b", "e"]


def test_of_a_slow_line_between_two_good_hosts_both_ends_go_behind() -> None:
    assert chain_order(HOSTS, rates({("c", "d")})) == ["a", "b", "e", "f", "c", "d"]


def test_the_one_that_has_everything_stays_first_however_slow_it_is() -> None:
    assert chain_order(HOSTS, rates(around("a")))[0] == "a"
    assert sorted(chain_order(HOSTS, rates(around("a")))) == HOSTS


def test_one_that_was_not_measured_goes_last() -> None:
    found = rates(set())
    del found["c"], found["d"]  # c said nothing, so that d had nobody to pull from
    assert chain_order(HOSTS, found)[-1] == "c"


@pytest.mark.parametrize("hosts", [["a"], ["a", "b"]])
def test_there_is_nothing_to_order(hosts: list[str]) -> None:
    assert chain_order(hosts, dict.fromkeys(hosts, 1.0)) == hosts
    assert chain_order(HOSTS, {}) == HOSTS
