"""The book's copy on another gateway host: all that counts goes there, and nothing that is the host's own."""

import base64
import json
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load

TEXT = "name: tiny\nengine: {{ lookup('pipe', 'id') }} $HOME 世界\n"


@pytest.fixture
def shared(load: Load) -> ModuleType:
    return load("book/onprem_llm_book_copy")


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def site(folder: Path) -> dict[str, str]:
    roots = {"book": folder / "book", "keys": folder / "secrets"}
    for root in roots.values():
        root.mkdir(parents=True)
    return {part: str(root) for part, root in roots.items()}


@pytest.fixture
def first(tmp_path: Path) -> dict[str, str]:
    roots = site(tmp_path / "first")
    put(Path(roots["book"]), **{
        "gateway": "this one", "bootstrap.json": "{}", "events.jsonl": "{}\n", "hosts.json": "{}", "network.json": "{}",
        "tiny/1.yaml": TEXT, "tiny/1.json": "{}", "tiny/current": "1\n",
        "tiny/rollout.json": "{}", "gone/4.yaml": "x", "gone/4.json": "{}",
        "ca/ca.crt": "root", "ca/ca.key": "private", "ca/.lock": "", "keys/keys.json": "hashes",
    })  # fmt: skip
    put(Path(roots["keys"]), **{
        "tiny": "secret", "open-webui-admin": "p", "client-onprem-llm": "k", "engine.key": "own", "engine.crt": "own",
    })  # fmt: skip
    return roots


def there(roots: dict[str, str]) -> set[str]:
    return {p.relative_to(root).as_posix() for root in roots.values() for p in Path(root).rglob("*") if p.is_file()}


def test_what_counts_goes_and_what_is_the_hosts_own_stays(
    shared: ModuleType, first: dict[str, str], tmp_path: Path
) -> None:
    second = site(tmp_path / "second")
    put(Path(second["book"]), second="another")
    shared.written(shared.differing(second, shared.unpacked(shared.packed(first))))
    assert there(second) == {
        "second", "events.jsonl", "hosts.json", "network.json", "tiny/1.yaml", "tiny/1.json", "tiny/current",
        "tiny/rollout.json",
        "gone/4.yaml",
        "gone/4.json", "ca/ca.crt", "ca/ca.key", "tiny", "open-webui-admin", "client-onprem-llm",
    }  # fmt: skip
    assert (Path(second["book"]) / "tiny/1.yaml").read_text(encoding="utf-8") == TEXT
    for root in second.values():
        modes = {p.stat().st_mode & 0o077 for p in Path(root).rglob("*") if p.name != "second"}
        assert modes == {0}
    assert shared.differing(second, shared.unpacked(shared.packed(first))) == []


def test_the_first_ones_word_counts_and_old_revisions_stay(
    shared: ModuleType, first: dict[str, str], tmp_path: Path
) -> None:
    second = site(tmp_path / "second")
    book = Path(second["book"])
    put(
        book,
        **{
            "tiny/1.yaml": "other",
            "tiny/2.yaml": "newer",
            "tiny/current": "2\n",
            "gone/current": "4\n",
            "gone/rollout.json": "{}",
        },
    )
    changes = shared.differing(second, shared.unpacked(shared.packed(first)))
    paths = [path.relative_to(book).as_posix() for path, _ in changes if path.is_relative_to(book)]
    assert paths.index("tiny/1.yaml") < paths.index("tiny/current")  # a run that is cut off leaves the old one current
    shared.written(changes)
    assert (book / "tiny/current").read_text() == "1\n"
    assert (book / "tiny/2.yaml").read_text() == "newer"
    assert not (book / "gone/current").exists()
    assert not (book / "gone/rollout.json").exists()


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


@pytest.mark.parametrize(
    "text",
    [
        "", "not base64!", base64.b64encode(b"nothing packed").decode(), packed([]), packed({"etc": {"passwd": "x"}}),
        packed({"book": {"../../etc/passwd": "x"}}), packed({"book": {"gateway": "x"}}),
        packed({"book": {"second": ""}}),
        packed({"keys": {"engine.key": "x"}}), packed({"keys": {"../x": "y"}}), packed({"book": {"tiny/1.yaml": 1}}),
        packed({"book": {"keys/keys.json": "{}"}}), packed({"book": {"tiny/1.yaml\n": "x"}}),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str, shared: ModuleType) -> None:
    with pytest.raises(shared.BookError, match="no copy of a book"):
        shared.unpacked(text)


def test_a_link_is_not_followed(shared: ModuleType, first: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("not ours")
    (Path(first["keys"]) / "link").symlink_to(tmp_path / "outside")
    assert "link" not in shared.unpacked(shared.packed(first))["keys"]


def test_lines_that_the_first_one_knows_nothing_of_are_forgotten(
    shared: ModuleType, first: dict[str, str], tmp_path: Path
) -> None:
    second = site(tmp_path / "second")
    put(Path(second["book"]), **{"network.json": "of last year"})
    (Path(first["book"]) / "network.json").unlink()
    shared.written(shared.differing(second, shared.unpacked(shared.packed(first))))
    assert "network.json" not in there(second)
