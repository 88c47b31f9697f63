"""How blobs are laid out over media of one size: which volume has what, and where a large blob is cut."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from onprem_llm.errors import UsageError
from onprem_llm.output import human_bytes

# A volume must hold its own copy of the manifest, and something beside it.
LEAST_SHARE = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """A blob, or the `number`th part of one (from 0), in a volume (from 0)."""

    sha256: str
    size: int
    volume: int
    number: int | None = None


@dataclass(slots=True)
class _Room:
    left: int
    pieces: list[Piece] = field(default_factory=list)


def lay_out(
    blobs: Mapping[str, int], volume_size: int, reserve: int, first: Collection[str] = ()
) -> list[Piece]:  # fmt: skip
    """Return the pieces of blobs (sizes by sha256), each in the first volume that has room for it, largest first.

    Those that are `first` come before all others: what is needed to begin is in the first volume.
    `reserve` bytes of each volume are for the manifest and the small files. UsageError where nothing is left.
    """
    room = volume_size - reserve
    if room * LEAST_SHARE < volume_size:
        raise UsageError(
            f"--volume-size: found {human_bytes(volume_size)}, of which the manifest takes {human_bytes(reserve)}",
            hint=f"ask for {human_bytes(reserve * 4)} or more",
        )
    rooms: list[_Room] = []
    pieces: list[Piece] = []
    for size, sha256, number in _cut(blobs, room, first):
        at = next((index for index, one in enumerate(rooms) if one.left >= size), len(rooms))
        if at == len(rooms):
            rooms.append(_Room(room))
        rooms[at].left -= size
        pieces.append(Piece(sha256, size, at, number))
    return pieces


def _cut(blobs: Mapping[str, int], room: int, first: Collection[str]) -> Sequence[tuple[int, str, int | None]]:
    found: list[tuple[int, str, int | None]] = []
    for sha256, size in blobs.items():
        if size <= room:
            found.append((size, sha256, None))
        else:
            starts = range(0, size, room)
            found += [(min(room, size - start), sha256, number) for number, start in enumerate(starts)]
    return sorted(found, key=lambda one: (one[1] not in first, -one[0], one[1], one[2] or 0))
