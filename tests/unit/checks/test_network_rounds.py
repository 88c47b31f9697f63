"""Who measures with whom: all pairs once, and nobody twice at a time."""

from itertools import combinations

import pytest

from onprem_llm.checks.network_rounds import rounds


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9, 200])
def test_every_pair_meets_once_and_nobody_has_two_at_a_time(count: int) -> None:
    partners = rounds(count)
    assert {len(one) for one in partners} == {count - 1 + count % 2}
    met = []
    for number in range(len(partners[0])):
        at = {host: partners[host][number] for host in range(count)}
        # Whom I measure with measures with me: nobody is in two pairs.
        assert all(at[other] == host for host, other in at.items() if other is not None)
        assert sum(other is None for other in at.values()) == count % 2
        met += [(host, other) for host, other in at.items() if other is not None and host < other]
    assert sorted(met) == list(combinations(range(count), 2))


@pytest.mark.parametrize("count", [0, 1])
def test_one_alone_has_nobody(count: int) -> None:
    assert rounds(count) == [[]] * count
