"""What the wheel and the sdist carry: everything a site needs, and nothing that is ours alone."""

import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in git("ls-files", "--cached", "--others", "--exclude-standard"):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    # A file as a failed run leaves it: it must not be shipped.
    (tree / "playbooks" / "stray.retry").write_text("host\n")
    # What `python -m build` calls, the wheel from the sdist's own files, without two processes for each.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tree)
        with tarfile.open(out / build.build_sdist(str(out))) as archive:
            archive.extractall(out, filter="data")
        patch.chdir(next(path for path in out.iterdir() if path.is_dir()))
        build.build_wheel(str(out))
    return out


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def tracked(folder: str) -> set[str]:
    return set(git("ls-files", folder))


def test_the_wheel_ships_playbooks_and_roles(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    for folder in ("playbooks", "roles"):
        missing = {name for name in tracked(folder) if f"onprem_llm/{name}" not in names}
        assert not missing, missing
    assert {name.removeprefix("cli/") for name in tracked("cli/onprem_llm")} <= names
    assert not [name for name in names if name.endswith(".retry") or "__pycache__" in name]
    assert not [name for name in names if not name.startswith(("onprem_llm/", "onprem_llm-"))]


def test_the_sdist_builds_the_same_wheel(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    inside = {name.split("/", 1)[1] for name in names if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "playbooks/probe.yml"} <= inside
    assert not [name for name in inside if name.endswith(".retry")]
