"""The host's half of a transfer: what counts as there, and what is not written to."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load

Step = Callable[[ModuleType, Path], object]


def wanted(name: str, text: str) -> dict[str, Any]:
    return {"path": name, "size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.fixture
def receive(load: Load) -> ModuleType:
    return load("file_transfer/receive_file")


def test_a_partial_file_is_looked_at_chunk_by_chunk(receive: ModuleType, tmp_path: Path) -> None:
    folder, one = tmp_path / "new", wanted("sub/file", "abcdef")
    assert receive.look(folder, one, 4)["chunks"] == []
    (folder / "sub/file.partial").write_text("abcdef and more")
    assert receive.look(folder, one, 4)["chunks"][0] == hashlib.sha256(b"abcd").hexdigest()
    receive.finish(folder, one, 1_000_000_000)
    assert (folder / "sub/file").read_text() == "abcdef"
    assert (folder / "sub/file").stat().st_mtime_ns == 1_000_000_000
    assert receive.look(folder, one, 4)["present"]
    assert not receive.look(folder, wanted("sub/file", "abcdeX"), 4)["present"]
    receive.finish(folder, wanted("empty", ""), 0)
    assert (folder / "empty").stat().st_size == 0


def test_of_many_those_are_there_that_are_right_and_no_link(receive: ModuleType, tmp_path: Path) -> None:
    for name in ("right", "wrong", "short"):
        (tmp_path / name).write_text(name[:5])
    (tmp_path / "link").symlink_to("right")
    files = [
        {"folder": str(tmp_path), **wanted(name, text)}
        for name, text in {"right": "right", "wrong": "WRONG", "short": "shorter", "link": "right", "n/e/w": ""}.items()
    ]
    assert receive.look_many(files)["paths"] == [str(tmp_path / "right")]
    assert (tmp_path / "n/e").is_dir(), "what is sent now has a folder"


STEPS: dict[str, Step] = {
    "look": lambda receive, folder: receive.look(folder, wanted("pool/a", "abc"), 4),
    "look_many": lambda receive, folder: receive.look_many([{"folder": str(folder), **wanted("pool/a", "abc")}]),
    "finish": lambda receive, folder: receive.finish(folder, wanted("pool/a", "abc"), 0),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_nothing_is_written_through_a_folder_that_is_a_link(receive: ModuleType, tmp_path: Path, step: Step) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "a").write_text("abc")
    (folder / "pool").symlink_to(outside)
    with pytest.raises(ValueError, match=f"{folder}/pool is a link, expected a folder: remove it"):
        step(receive, folder)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"a": "abc"}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_nothing_is_written_to_what_is_no_plain_file(
    receive: ModuleType, tmp_path: Path, step: Step, kind: str
) -> None:
    (tmp_path / "precious").write_text("precious")
    growing = tmp_path / "folder/pool/a.partial"
    growing.parent.mkdir(parents=True)
    growing.symlink_to(tmp_path / "precious") if kind == "link" else os.mkfifo(growing)
    with pytest.raises(ValueError, match=r"a\.partial is no plain file: remove it"):
        step(receive, tmp_path / "folder")
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_folder_itself_may_be_a_link(receive: ModuleType, tmp_path: Path) -> None:
    """A site puts weights on a larger disk that way."""
    (tmp_path / "large").mkdir()
    (tmp_path / "folder").symlink_to("large")
    (tmp_path / "large/a").write_text("abc")
    assert receive.look(tmp_path / "folder", wanted("a", "abc"), 4)["present"]


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_path_that_leaves_the_folder_is_refused(
    receive: ModuleType, tmp_path: Path, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(wanted.__globals__, "wanted", lambda _, text: {"path": "../a", "size": len(text), "sha256": ""})
    with pytest.raises(ValueError, match="expected one below"):
        step(receive, tmp_path / "folder")
    assert not (tmp_path / "a").exists()
