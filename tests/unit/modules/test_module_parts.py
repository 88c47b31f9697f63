"""What modules share: a file in one piece, and files against their sums."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load

Put = Callable[..., None]


@pytest.fixture
def put(load: Load) -> Put:
    load("book/book_event")  # puts module_utils in place
    from ansible.module_utils import onprem_llm_write

    found: Put = onprem_llm_write.put
    return found


@pytest.mark.parametrize("content", ["größer\n", "größer\n".encode()], ids=["text", "bytes"])
def test_content_and_mode(put: Put, tmp_path: Path, content: str | bytes) -> None:
    put(tmp_path / "a", content)
    put(tmp_path / "b", content, 0o644)
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "größer\n"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o600, 0o644]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "a").write_text("old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(OSError, match="No space left"):
        put(tmp_path / "a", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_nobody_reads_a_secret_on_its_way(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    monkeypatch.setattr(os, "fsync", lambda _: modes.extend(path.stat().st_mode & 0o777 for path in tmp_path.iterdir()))
    old = os.umask(0)
    try:
        put(tmp_path / "a", "secret", 0o640)
    finally:
        os.umask(old)
    assert modes == [0o600]


@pytest.fixture
def sums(load: Load) -> ModuleType:
    load("book/book_event")
    from ansible.module_utils import onprem_llm_sums

    found: ModuleType = onprem_llm_sums
    return found


def test_a_file_is_right_by_its_bytes_alone(sums: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "folder").mkdir()
    wanted = {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    right = {name: sums.is_right(tmp_path, {"path": name, **wanted}) for name in ("a", "link", "folder", "none")}
    assert right == {"a": True, "link": False, "folder": False, "none": False}
    assert not sums.is_right(tmp_path, {"path": "a", **wanted, "size": 4})
    (tmp_path / "a").write_bytes(b"abd")
    assert not sums.is_right(tmp_path, {"path": "a", **wanted})


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "b/../../a", "", "."])
def test_a_path_that_leaves_the_folder_is_refused(sums: ModuleType, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected one below"):
        sums.is_right(tmp_path, {"path": name, "size": 0, "sha256": ""})


def test_a_folder_that_is_a_link_is_followed_by_nobody(sums: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a").touch()
    (tmp_path / "it").mkdir()
    (tmp_path / "it/pool").symlink_to("../outside")
    with pytest.raises(ValueError, match="it/pool is a link, expected a folder: remove it"):
        sums.is_right(tmp_path / "it", {"path": "pool/a", "size": 0, "sha256": hashlib.sha256().hexdigest()})
