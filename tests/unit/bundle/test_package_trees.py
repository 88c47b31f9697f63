"""Package repositories on the control host: what of them is sent, and what is refused."""

from pathlib import Path

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.package_trees import PackageTrees, read_tree
from onprem_llm.spec.site import parse_site

PARAGRAPH = "Package: {0}\nFilename: {1}\nSize: 3\nSHA256: " + "0" * 64 + "\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "packages" / "debian-13-amd64"
    (folder / "pool").mkdir(parents=True)
    for name in ("pool/a.deb", "pool/b.deb"):
        (folder / name).write_bytes(b"deb")
    write(folder, "pool/a.deb", "./pool/b.deb")
    for name in ("InRelease", "key.asc", "Release"):
        (folder / name).write_text(name)
    return folder


def write(folder: Path, *files: str) -> None:
    (folder / "Packages").write_text("\n".join(PARAGRAPH.format(file, file) for file in files))


def test_what_the_index_names_is_sent_with_what_signs_it(tree: Path) -> None:
    (tree / "pool/other.deb").write_text("of nobody")
    assert [one["path"] for one in read_tree(tree).files] == [
        "InRelease",
        "Packages",
        "key.asc",
        "pool/a.deb",
        "pool/b.deb",
    ]


@pytest.mark.parametrize("name", ["InRelease", "key.asc"])
def test_unsigned_is_refused(tree: Path, name: str) -> None:
    (tree / name).unlink()
    with pytest.raises(InvalidError, match=f"not signed: found no {name}"):
        read_tree(tree)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/hostname", "pool//a.deb"])
def test_a_path_that_leaves_the_folder_is_refused(tree: Path, name: str) -> None:
    target = Path(f"{tree}/{name}") if not name.startswith("/") else tree / "unused"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"deb")
    write(tree, name)
    with pytest.raises(InvalidError):
        read_tree(tree)


def test_a_package_that_is_not_whole_is_named(tree: Path) -> None:
    (tree / "pool/b.deb").write_bytes(b"d")
    with pytest.raises(InvalidError, match=r"pool/b\.deb: found no file of 3 bytes"):
        read_tree(tree)


def test_an_index_without_sums_is_refused(tree: Path) -> None:
    (tree / "Packages").write_text("Package: a\nFilename: pool/a.deb\nSize: 3\n")
    with pytest.raises(InvalidError, match="without Filename, Size and SHA256"):
        read_tree(tree)


def test_a_release_of_which_there_is_none(tree: Path) -> None:
    trees = PackageTrees(tree.parent)
    assert trees.for_host("debian", "13", "x86_64").name == "debian-13-amd64"
    with pytest.raises(InvalidError, match=r"found debian-13-amd64 in .*, expected debian-12-amd64"):
        trees.for_host("debian", "12", "x86_64")
    with pytest.raises(InvalidError, match="no packages for it"):
        trees.for_host("../packages/debian", "13", "x86_64")


def test_no_folder_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"onprem_llm_site\.packages_dir: .*/none is not a folder"):
        PackageTrees(tmp_path / "none")


def test_packages_come_from_one_place() -> None:
    with pytest.raises(InvalidError) as refused:
        parse_site({"packages_dir": "packages", "package_mirrors": {"debian": "http://mirror.local/debian"}}, "test")
    assert "packages_dir and package_mirrors" in str(refused.value.details)
