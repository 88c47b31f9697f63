"""A backup is what was there, whole, and comes back so; the command line reads the same archive."""

import hashlib
import io
import json
import os
import sqlite3
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onprem_llm.backups import read
from onprem_llm.errors import InvalidError

from .conftest import Load


@pytest.fixture
def modules(load: Load, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType, ModuleType]:
    make, restore, mark = (load(f"backup/backup_{name}") for name in ("make", "restore", "mark"))
    monkeypatch.setattr(restore, "stop_page", lambda: None)
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return make, restore, mark


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def host(root: Path) -> dict[str, Any]:
    """Make what a gateway host has."""
    for name, text in {
        "book/gateway": "mark", "book/bootstrap.json": "own", "book/tiny/1.yaml": "name: tiny\n",
        "book/keys/keys.json": "{}", "book/keys/keys.map": "of it", "book/keys/.lock": "",
        "book/ca/ca.crt": "root", "book/ca/ca.key": "secret",
        "data/secrets/tiny": "key", "data/secrets/engine.key": "own", "data/open-webui/data/uploads/a.txt": "a",
    }.items():  # fmt: skip
        put(root / name, text)
    (root / "data/open-webui/data/link").symlink_to("uploads/a.txt")
    return {"book": str(root / "book"), "data_root": str(root / "data"), "parts": ["book", "secrets", "ui"]}


def database(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE chat (title TEXT)")
    connection.execute("INSERT INTO chat VALUES ('kept')")
    connection.commit()
    return connection


def saved(make: ModuleType, root: Path, archive: Path) -> Path:
    make.write({**host(root), "path": str(archive), "about": {"host": "h1", "onprem_llm": "0"}})
    return archive


def test_it_comes_back_as_it_was_and_what_is_the_hosts_own_stays(
    modules: tuple[ModuleType, ModuleType, ModuleType], tmp_path: Path
) -> None:
    make, restore, _ = modules
    open_one = database(tmp_path / "old/data/open-webui/data/webui.db")  # in use, its rows still in the -wal
    archive = saved(make, tmp_path / "old", tmp_path / "b" / "b.tar.gz")
    assert archive.stat().st_mode & 0o777 == 0o600
    open_one.close()
    new = tmp_path / "new"
    for name, text in {
        "book/bootstrap.json": "its own", "book/second": "x", "book/other/1.yaml": "gone",
        "book/keys/keys.json": "its own", "book/keys/keys.map": "its own", "book/ca/ca.crt": "another",
        "data/secrets/engine.key": "its own", "data/secrets/engine.crt": "x", "data/secrets/stale": "x",
    }.items():  # fmt: skip
        put(new / name, text)
    count = restore.restore(
        {"path": str(archive), "book": str(new / "book"), "data_root": str(new / "data"), "mark": "gateway"}
    )
    assert count == {"book": 4, "secrets": 1, "ui": 3}
    found = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if not path.is_dir())
    assert found == [
        "book/bootstrap.json", "book/ca/ca.crt", "book/ca/ca.key", "book/gateway", "book/keys/given.json",
        "book/keys/keys.json", "book/keys/keys.map",
        "book/tiny/1.yaml", "data/open-webui/data/link", "data/open-webui/data/uploads/a.txt",
        "data/open-webui/data/webui.db", "data/secrets/tiny",
    ]  # fmt: skip
    assert (new / "book/bootstrap.json").read_text() == "its own"
    # What was revoked since is known from the host's own record alone: both are merged by who knows how.
    assert [(new / "book/keys" / name).read_text() for name in ("keys.json", "given.json")] == ["its own", "{}"]
    assert (new / "book/ca/ca.crt").read_text() == "root"
    assert (new / "data/open-webui/data/link").read_text() == "a"
    rows = sqlite3.connect(new / "data/open-webui/data/webui.db").execute("SELECT title FROM chat").fetchall()
    assert rows == [("kept",)]


def test_certificates_of_the_same_authority_stay(
    modules: tuple[ModuleType, ModuleType, ModuleType], tmp_path: Path
) -> None:
    make, restore, _ = modules
    archive = saved(make, tmp_path / "old", tmp_path / "b.tar.gz")
    for authority in (None, "root"):
        new = tmp_path / f"new-{authority}"
        put(new / "data/secrets/engine.crt", "good")
        if authority:
            put(new / "book/ca/ca.crt", authority)
        restore.restore(
            {"path": str(archive), "book": str(new / "book"), "data_root": str(new / "data"), "mark": "second"}
        )
        assert (new / "data/secrets/engine.crt").read_text() == "good"
        assert (new / "book/second").exists()
        assert not (new / "book/gateway").exists()


def test_a_damaged_one_changes_nothing_and_is_seen_here_too(
    modules: tuple[ModuleType, ModuleType, ModuleType], tmp_path: Path
) -> None:
    make, restore, _ = modules
    archive = saved(make, tmp_path / "old", tmp_path / "b.tar.gz")
    assert read(archive).files == {"book": 5, "secrets": 1, "ui": 2}
    assert read(archive).host == "h1"
    wrong = tmp_path / "wrong.tar.gz"
    with tarfile.open(archive) as source, tarfile.open(wrong, "w:gz") as target:
        for info in source:
            data = source.extractfile(info).read() if info.isreg() else b""  # type: ignore[union-attr]
            if info.name == "secrets/tiny":
                data = b"kez"
            target.addfile(info, io.BytesIO(data) if info.isreg() else None)
    new = tmp_path / "new"
    with pytest.raises(restore.BackupError, match="damaged"):
        restore.restore(
            {"path": str(wrong), "book": str(new / "book"), "data_root": str(new / "data"), "mark": "gateway"}
        )
    assert not [path for path in new.rglob("*") if not path.is_dir()]
    with pytest.raises(InvalidError, match="secrets/tiny first"):
        read(wrong)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(InvalidError, match="no backup that can be read"):
        read(cut)


@pytest.mark.parametrize("name", ["book/../../etc/passwd", "etc/passwd", "secrets//etc/passwd", "secrets/engine.key"])
def test_a_name_that_leaves_its_folder_is_refused(
    modules: tuple[ModuleType, ModuleType, ModuleType], name: str
) -> None:
    restore = modules[1]
    with pytest.raises(restore.BackupError, match="nothing that a backup holds"):
        restore.check_member(name)


def test_a_link_that_leaves_its_folder_is_refused(modules: tuple[ModuleType, ModuleType, ModuleType]) -> None:
    restore = modules[1]
    restore.check_link("a/b", "../c")
    for target in ("/etc/passwd", "../../etc"):
        with pytest.raises(restore.BackupError, match="out of its folder"):
            restore.check_link("a/b", target)


Members = dict[str, tuple[str | None, str]]


def by_hand(path: Path, members: Members) -> Path:
    """Write an archive as ours are, of {name: (where a link points, or None; text)}, in this order."""
    files: dict[str, dict[str, str]] = {}
    with tarfile.open(path, "w:gz") as archive:
        for name, (link, text) in members.items():
            info = tarfile.TarInfo(name)
            if link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, link
                files[name] = {"link": link}
            else:
                info.size = len(text)
                files[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest()}
            archive.addfile(info, None if link is not None else io.BytesIO(text.encode()))
        manifest = json.dumps({"version": 1, "parts": ["book"], "files": files}).encode()
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        archive.addfile(info, io.BytesIO(manifest))
    return path


@pytest.mark.parametrize(
    "members",
    [
        {"book/a/b/c/l1": ("../../..", ""), "book/l4": ("a/b/c/l1/../../..", ""), "book/l4/PWNED": (None, "x")},
        {"book/a/b/c/l1": ("../../..", ""), "book/l4": ("a/b/c/l1/../../..", "")},
        {"book/a/l1": (".", ""), "book/a/l1/l2": ("..", "")},
    ],
    ids=["a file through links", "links that leave together", "a link in a link"],
)
def test_links_lead_nobody_out_of_the_folder(
    modules: tuple[ModuleType, ModuleType, ModuleType], tmp_path: Path, members: Members
) -> None:
    restore, root = modules[1], tmp_path / "deep" / "root"
    archive = by_hand(tmp_path / "evil.tar.gz", {"book/tiny/1.yaml": (None, "name: tiny"), **members})
    order = {"path": str(archive), "book": str(root / "book"), "data_root": str(root / "data"), "mark": "gateway"}
    with pytest.raises((restore.BackupError, OSError)):
        restore.restore(order)
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir() and path != archive]


def test_links_among_files_come_back_whatever_their_order(
    modules: tuple[ModuleType, ModuleType, ModuleType], tmp_path: Path
) -> None:
    archive = by_hand(tmp_path / "b.tar.gz", {"book/link": ("tiny/1.yaml", ""), "book/tiny/1.yaml": (None, "name")})
    order = {"path": str(archive), "book": str(tmp_path / "book"), "data_root": str(tmp_path / "d"), "mark": "gateway"}
    assert modules[1].restore(order) == {"book": 2}
    assert (tmp_path / "book/link").read_text() == "name"


def test_a_host_that_was_the_gateway_forgets_what_only_a_gateway_has(
    modules: tuple[ModuleType, ModuleType, ModuleType], tmp_path: Path
) -> None:
    mark = modules[2]
    order = host(tmp_path)
    put(tmp_path / "data/secrets/client-onprem-llm", "x")
    assert mark.mark(tmp_path / "book", "")
    mark.forget(order["book"], order["data_root"])
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir())
    assert found == ["book/bootstrap.json", "book/keys/.lock", "data/secrets/engine.key", "data/secrets/tiny"]
