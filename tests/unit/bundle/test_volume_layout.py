"""Which volume has what."""

import random

import pytest

from onprem_llm.bundle.volumes import lay_out
from onprem_llm.errors import UsageError


def sums(*sizes: int) -> dict[str, int]:
    return {f"{number:064x}": size for number, size in enumerate(sizes)}


def test_no_volume_is_larger_than_asked_for_and_nothing_is_lost() -> None:
    numbers = random.Random(4)  # noqa: S311
    blobs = sums(*(numbers.choice([0, 1, 700, 4000, 9000, 25_000]) + numbers.randrange(50) for _ in range(300)))
    pieces = lay_out(blobs, 10_000, 500)
    rooms: dict[int, int] = {}
    for piece in pieces:
        rooms[piece.volume] = rooms.get(piece.volume, 0) + piece.size
    assert all(size <= 9500 for size in rooms.values())
    assert sorted(rooms) == list(range(len(rooms)))
    for sha256, size in blobs.items():
        of_one = sorted((p.number or 0, p.size) for p in pieces if p.sha256 == sha256)
        assert sum(piece for _, piece in of_one) == size
        assert [number for number, _ in of_one] == list(range(len(of_one)))
        assert all(piece == 9500 for _, piece in of_one[:-1])
    # Little is left over: at most one volume is less than half full.
    assert sum(size < 4750 for size in rooms.values()) <= 1


def test_the_order_of_blobs_changes_nothing() -> None:
    blobs = sums(5, 70, 70, 3000, 12, 0)
    assert lay_out(blobs, 2000, 100) == lay_out(dict(reversed(blobs.items())), 2000, 100)


def test_what_is_needed_to_begin_is_in_the_first_volume() -> None:
    blobs = sums(900, 900, 10, 20)
    first = {f"{2:064x}", f"{3:064x}"}
    where = {piece.sha256: piece.volume for piece in lay_out(blobs, 1000, 50, first)}
    assert {where[sha256] for sha256 in first} == {0}


def test_a_volume_must_hold_more_than_its_manifest() -> None:
    with pytest.raises(UsageError, match="of which the manifest takes"):
        lay_out(sums(1), 1000, 600)
