"""Wheels for other Pythons than this one, through the real pip; ours is the same each time."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from onprem_llm import __version__
from onprem_llm.errors import InvalidError
from onprem_llm.locking import wheels as wheels_module
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.own_wheel import built, own_wheel, packed
from onprem_llm.locking.wheels import Wheels
from onprem_llm.resources import PACKAGE

CHECKOUT = PACKAGE.parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_wheel(tmp_path_factory.mktemp("own"))


def names(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_our_own_wheel_is_the_same_each_time(wheel: Path, tmp_path: Path) -> None:
    again = built(CHECKOUT, tmp_path)
    assert again.read_bytes() == wheel.read_bytes()
    assert wheel.name == f"onprem_llm-{__version__}-py3-none-any.whl"


def test_an_installed_package_makes_a_wheel_with_the_same_files(wheel: Path, tmp_path: Path) -> None:
    """Installed for real in a place of its own, where there is no checkout."""
    place, made = tmp_path / "place", [tmp_path / "one", tmp_path / "two"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(place), str(wheel)], check=True)
    for folder in made:
        folder.mkdir()
        script = "import sys, pathlib; from onprem_llm.locking.own_wheel import own_wheel; "
        script += "own_wheel(pathlib.Path(sys.argv[1]))"
        subprocess.run(
            [sys.executable, "-c", script, str(folder)], check=True, env={"PYTHONPATH": str(place)}, cwd=tmp_path
        )
    one, two = (next(folder.glob("*.whl")) for folder in made)
    assert one.read_bytes() == two.read_bytes()
    record, metadata = (f"onprem_llm-{__version__}.dist-info/{name}" for name in ("RECORD", "WHEEL"))
    ours, theirs = names(one), names(wheel)
    assert set(ours) == set(theirs)
    assert {name for name in ours if ours[name] != theirs[name]} <= {record, metadata}
    subprocess.run([*pip, "--target", str(tmp_path / "again"), str(one)], check=True)


def test_without_a_checkout_packed_needs_an_installed_package(tmp_path: Path) -> None:
    assert packed(tmp_path).name.startswith("onprem_llm-")


def tiny_wheel(folder: Path, name: str, *requirements: str, version: str = "1") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requirements)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """A package index that is a folder; our own wheel is a tiny one that needs other things on other Pythons."""
    folder = tmp_path / "index"
    for name in ("pip", "everywhere", "oldest", "deeper"):
        tiny_wheel(folder, name)
    tiny_wheel(folder, "newest", "deeper; python_version >= '3.13'")
    own = tiny_wheel(
        tmp_path / "own", "onprem_llm", "everywhere", "newest; python_version >= '3.13'",
        "oldest; python_version < '3.11'", "windows; sys_platform == 'win32'", "more; extra == 'dev'",
    )  # fmt: skip
    monkeypatch.setattr(wheels_module, "own_wheel", lambda folder: own)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_requirements_count_for_the_python_that_is_asked_for(index: Path) -> None:
    old, new = Wheels("linux/amd64", Blobs()).resolve(["3.13", "3.10"])
    found = {one.python: [wheel.filename.partition("-")[0] for wheel in one.files] for one in (old, new)}
    assert found == {
        "3.10": ["everywhere", "oldest", "onprem_llm", "pip"],
        "3.13": ["deeper", "everywhere", "newest", "onprem_llm", "pip"],
    }
    for one in new.files:
        data = Blobs().path(one.sha256).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (one.sha256, one.size)


def test_wheels_come_again_by_version(index: Path) -> None:
    (locked,) = Wheels("linux/amd64", Blobs()).resolve(["3.13"])
    for path in Blobs().root.iterdir():
        path.unlink()
    tiny_wheel(index, "everywhere", version="2")
    Wheels("linux/amd64", Blobs()).fetch(locked)
    assert all(Blobs().has(one.sha256, one.size) for one in locked.files)


def test_a_wheel_that_is_not_to_be_had_is_named(index: Path) -> None:
    (index / "newest-1-py3-none-any.whl").unlink()
    with pytest.raises(InvalidError, match=r"wheels for Python 3\.13 \(linux/amd64\)") as raised:
        Wheels("linux/amd64", Blobs()).resolve(["3.13"])
    assert "newest" in (raised.value.details or "")


def test_the_real_closure_installs_with_no_index(wheel: Path, cache: Path, tmp_path: Path) -> None:
    """For this Python, so that pip here can say whether anything is missing."""
    python = f"3.{sys.version_info.minor}"
    (locked,) = Wheels("linux/amd64", Blobs()).resolve([python])
    folder = tmp_path / "wheels"
    folder.mkdir()
    for one in locked.files:
        (folder / one.filename).hardlink_to(Blobs().path(one.sha256))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-index"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run([*pip, "--find-links", str(folder), "onprem-llm"], check=True, env=environment)
    assert any(one.filename.startswith("pip-") for one in locked.files)
