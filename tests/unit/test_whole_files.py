"""Small files are there whole or not at all, and nothing is written through a link that somebody left."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onprem_llm.bundle.registry_view import write_registry
from onprem_llm.whole_files import PARTIAL, write_whole


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("mine")
    return path


def test_a_link_at_either_name_is_not_followed(tmp_path: Path, victim: Path) -> None:
    path = tmp_path / "new folder" / "file"
    path.parent.mkdir()
    path.symlink_to(victim)
    (path.parent / f"file{PARTIAL}").symlink_to(victim)
    write_whole(path, b"theirs")
    assert victim.read_text() == "mine"
    assert (path.is_symlink(), path.read_bytes(), list(path.parent.iterdir())) == (False, b"theirs", [path])


def test_a_registrys_storage_is_written_so_too(tmp_path: Path, victim: Path) -> None:
    (tmp_path / f"index.json{PARTIAL}").symlink_to(victim)
    write_registry({"manifests": []}, tmp_path / "blobs", tmp_path)
    assert victim.read_text() == "mine"
    assert (tmp_path / "index.json").is_file()


def test_what_is_so_already_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_whole(path, b"one")
    before = path.stat()
    write_whole(path, b"one")
    after = path.stat()
    for name in ("st_ino", "st_mtime_ns", "st_ctime_ns"):  # not st_atime, which changes with reading
        assert getattr(after, name) == getattr(before, name)
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"


def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    write_whole(path, b"one")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as refused:
        write_whole(path, b"another")
    assert refused.value.filename == str(path)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"one", [path])


def test_two_that_write_the_same_file_leave_one_of_both_whole(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [letter * 100_000 for letter in (b"a", b"b", b"c", b"d")]

    def write(data: bytes) -> None:
        for _ in range(25):
            write_whole(path, data)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert list(tmp_path.iterdir()) == [path]
