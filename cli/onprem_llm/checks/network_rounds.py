"""Who measures with whom, and when: a round-robin tournament, in which no host is in two pairs at once. Pure."""

from collections.abc import Sequence


def rounds(count: int) -> list[list[int | None]]:
    """Return for each of `count` hosts its partner in every round, None where it rests.

    All pairs are in it once, in the fewest rounds that there can be: count - 1, or count where that is odd.
    """
    if count < 2:
        return [[] for _ in range(count)]
    # The circle method: the first stays, the others move one place on in each round; an odd one out rests.
    seats: list[int | None] = [*range(count), *([None] if count % 2 else [])]
    found: list[list[int | None]] = [[] for _ in range(count)]
    for _ in range(len(seats) - 1):
        for one, other in _facing(seats):
            if one is not None:
                found[one].append(other)
            if other is not None:
                found[other].append(one)
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found


def _facing(seats: Sequence[int | None]) -> list[tuple[int | None, int | None]]:
    half = len(seats) // 2
    return list(zip(seats[:half], reversed(seats[half:]), strict=True))
