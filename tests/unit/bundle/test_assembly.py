"""Parts of a blob, in any order, with what a kill leaves."""

import hashlib
from pathlib import Path

import pytest

from onprem_llm.bundle.assemble import Assembly
from onprem_llm.bundle.manifest import Blob
from onprem_llm.errors import OnpremError

PARTS = [b"first of them", b"second", b"third and last"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    (tmp_path / "medium" / "blobs" / "sha256").mkdir(parents=True)
    for data in PARTS:
        (tmp_path / "medium" / "blobs" / "sha256" / sha256(data)).write_bytes(data)
    return tmp_path / "medium"


def assembly(store: Path, whole: bytes = b"".join(PARTS)) -> Assembly:
    store.mkdir(exist_ok=True)
    return Assembly(store, Blob.model_validate({
        "sha256": sha256(whole), "size": sum(map(len, PARTS)), "role": "weights", "names": ("weights/m/x",),
        "parts": tuple({"sha256": sha256(data), "size": len(data)} for data in PARTS),
    }))  # fmt: skip


def ignore(_: int) -> None:
    """Progress is shown elsewhere."""


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_in_any_order(tmp_path: Path, medium: Path, order: tuple[int, ...]) -> None:
    one = assembly(tmp_path / "store")
    for number in order:
        assert not one.finish(ignore)
        assert one.add(number, medium, ignore)
        assert not one.add(number, medium, ignore)
    assert one.finish(ignore)
    assert one.target.read_bytes() == b"".join(PARTS)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [one.blob.sha256]
    assert one.present() == {0, 1, 2}


def test_a_line_that_a_kill_cut_short_is_none(tmp_path: Path, medium: Path) -> None:
    one = assembly(tmp_path / "store")
    one.add(1, medium, ignore)
    (journal,) = (tmp_path / "store").glob("*.jsonl")
    text = journal.read_text()
    journal.write_text(text + text[: len(text) // 2])
    assert one.present() == {1}
    journal.write_text(text.replace(sha256(PARTS[1]), sha256(b"of another bundle")) + '{"number": 99}\n[]\n')
    assert one.present() == set()


def test_a_journal_without_its_bytes_counts_for_nothing(tmp_path: Path, medium: Path) -> None:
    one = assembly(tmp_path / "store")
    one.add(1, medium, ignore)
    next((tmp_path / "store").glob("*.assembling")).unlink()
    assert one.present() == set()


@pytest.mark.parametrize("damage", [b"SECOND", b"secon", b"second and more", b""])
def test_a_part_that_is_another(tmp_path: Path, medium: Path, damage: bytes) -> None:
    one = assembly(tmp_path / "store")
    (medium / "blobs" / "sha256" / sha256(PARTS[1])).write_bytes(damage)
    with pytest.raises(OnpremError, match=r"weights/m/x, part 2\): found"):
        one.add(1, medium, ignore)
    assert one.present() == set()


@pytest.mark.parametrize(
    "damage", [b"second!", b"second and more than there is room for until the end", b"SECOND", b""]
)
def test_a_damaged_part_leaves_its_neighbours_as_they_are(tmp_path: Path, medium: Path, damage: bytes) -> None:
    """Its neighbours are journalled as whole: a byte too many was written over the first of the next."""
    one = assembly(tmp_path / "store")
    for number in (0, 2):
        one.add(number, medium, ignore)
    part = medium / "blobs" / "sha256" / sha256(PARTS[1])
    part.write_bytes(damage)
    with pytest.raises(OnpremError, match=r"part 2\): found"):
        one.add(1, medium, ignore)
    part.write_bytes(PARTS[1])
    one.add(1, medium, ignore)
    assert one.finish(ignore)
    assert one.target.read_bytes() == b"".join(PARTS)


def test_good_parts_of_a_whole_that_is_another(tmp_path: Path, medium: Path) -> None:
    """A disk that changed a part after it was written, or a bundle that was made wrong."""
    one = assembly(tmp_path / "store", b"something else")
    for number in range(3):
        one.add(number, medium, ignore)
    with pytest.raises(OnpremError, match="its parts together have sha256"):
        one.finish(ignore)
    assert not one.target.exists()
    # They are asked for again.
    assert one.present() == set()
