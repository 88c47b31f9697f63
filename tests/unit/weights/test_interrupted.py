"""A pull that ended at each of its steps: the next one goes on from there. The hub is one in memory."""

import errno
import hashlib
import os
from pathlib import Path
from threading import Event, Thread

import pytest
from memory_hub import FILES, Place

from onprem_llm.errors import OnpremError, RefusedError
from onprem_llm.weights import arriving, pull
from onprem_llm.weights.lock import held, in_use, is_held
from onprem_llm.weights.manifest import read_manifest
from onprem_llm.weights.sums import CHUNK, sums_of


class Killed(BaseException):
    """What stands for a kill -9: nothing of ours handles it."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def killed_at(target: object, name: str, monkeypatch: pytest.MonkeyPatch, place: Place, call: int = 1) -> None:
    """Pull, and die where `name` is called for the `call`-th time."""
    real, count = getattr(target, name), 0

    def die(*args: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count == call:
            raise Killed
        return real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(target, name, die)
        with pytest.raises(Killed):
            place.pull()
    assert not place.entry.complete or name == "remember"


@pytest.mark.parametrize(
    ("target", "name", "call"),
    [
        (arriving, "sums_of", 2),
        (arriving, "_sync", 2),
        (arriving.Arriving, "_note", 2),
        (arriving.Arriving, "finish", 1),
        (arriving, "sync_folder", 1),
        (arriving.Manifest, "write", 1),
        (pull.Store, "remember", 1),
    ],
)
def test_killed_in_the_middle(
    target: object, name: str, call: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(target, name, monkeypatch, place, call)
    place.pull()
    # Whatever had come was not fetched a second time.
    assert place.hub.given == sum(map(len, FILES.values()))


def test_a_journal_whose_last_line_was_cut(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at(arriving.Arriving, "finish", monkeypatch, place)
    journal = place.entry.partial / ".verified.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    place.pull()
    assert place.hub.given == sum(map(len, FILES.values()))


def test_a_journal_that_names_a_file_that_is_gone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at(arriving.Arriving, "finish", monkeypatch, place)
    (place.entry.partial / "Tiny" / "a.safetensors").unlink()
    place.pull()


def test_a_part_with_wrong_bytes_is_fetched_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at(arriving, "sums_of", monkeypatch, place, 2)
    (part,) = (place.entry.partial / ".incoming").iterdir()
    part.write_bytes(b"x" * part.stat().st_size)
    place.pull()


def test_killed_while_whole_weights_were_reopened(place: Place) -> None:
    place.pull()
    (place.entry.weights() / "b.safetensors").write_bytes(b"")
    place.entry.manifest_path.unlink()
    place.pull()


def test_a_stray_file_does_not_become_weights(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at(arriving.Arriving, "finish", monkeypatch, place)
    (place.entry.partial / "Tiny" / "evil.py").write_text("x")
    (place.entry.partial / "Tiny" / "link.json").symlink_to("/etc/hostname")
    assert {path.name for path in place.pull().entry.weights().iterdir()} == set(FILES)


def test_a_lock_is_the_kernels(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text("process 1 of somebody@dead\n")
    with held(lock, "x"):
        assert is_held(lock)
        with pytest.raises(RefusedError, match=f"process {os.getpid()} of "), held(lock, "x"):
            pass
    assert not is_held(lock)


def test_who_only_looks_makes_no_pull_fail(tmp_path: Path) -> None:
    lock, stop = tmp_path / "x.lock", Event()
    with held(lock, "x"):
        pass
    assert lock.read_text() == ""  # nobody is told of an owner that has gone
    looking = Thread(target=lambda: [is_held(lock) for _ in iter(stop.is_set, True)])
    looking.start()
    try:
        for _ in range(300):
            with held(lock, "x"):
                pass
    finally:
        stop.set()
        looking.join()


def test_several_may_send_and_nobody_pulls_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onprem_llm.weights.lock.TRIES", 2)
    lock = tmp_path / "x.lock"
    with in_use(lock, "x"), in_use(lock, "x"):
        assert is_held(lock)
        with pytest.raises(RefusedError, match=f"process {os.getpid()} of "), held(lock, "x"):
            pass
    with held(lock, "x"), pytest.raises(RefusedError), in_use(lock, "x"):
        pass


def test_who_may_only_read_the_store_sends_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *more: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("onprem_llm.weights.lock.os.open", refuse)
    with in_use(tmp_path / "x.lock", "x"):
        pass
    with pytest.raises(PermissionError), held(tmp_path / "x.lock", "x"):
        pass


def test_chunks_are_hashed_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onprem_llm.weights.sums.CHUNK", 4)
    monkeypatch.setattr("onprem_llm.weights.sums.READ", 2)
    path = tmp_path / "f"
    for data, count in ((b"", 0), (b"abcd", 1), (b"abcdefghi", 3)):
        path.write_bytes(data)
        sums = sums_of(path, git=True)
        assert sums.chunks == tuple(hashlib.sha256(data[at : at + 4]).hexdigest() for at in range(0, len(data), 4))
        assert len(sums.chunks) == count
        assert sums.sha256 == hashlib.sha256(data).hexdigest()
    # What `printf abcdefghi | git hash-object --stdin` says.
    assert sums.git_sha1 == "1e72a6b2c4a577ab0338860fa9fe87f761fc9bbd"
    assert CHUNK == 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"schema_version": 1', '"schema_version": 2'), "schema 2"),
        (('"commit_is"', '"new_thing": 1, "commit_is"'), "newer onprem-llm"),
        (('"path": "a.safetensors"', '"path": "../../a.safetensors"'), "not a whole manifest"),
        (('"sha256": "', '"sha256": "x'), "not a whole manifest"),
        (("}", ""), "not a whole manifest"),
    ],
)
def test_a_manifest_that_is_not_ours(place: Place, change: tuple[str, str], said: str) -> None:
    path = place.pull().entry.manifest_path
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(OnpremError, match=said):
        read_manifest(path)


def test_a_stray_file_in_the_store_hides_nothing(place: Place) -> None:
    place.pull()
    (place.entry.folder.parents[1] / "notes.txt").write_text("mine")
    assert list(place.store.entries()) == [place.entry]
