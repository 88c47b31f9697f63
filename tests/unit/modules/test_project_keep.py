"""What ran before a change is kept on its host and put back, whatever the change had come to."""

import hashlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from .conftest import Load


@pytest.fixture
def keep(load: Load) -> ModuleType:
    return load("compose_project/project_keep")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny-0", "r2")


def write(folder: Path, text: str, *more: str, env: str = "KEY='k'\n") -> Path:
    """Write a project as the role does."""
    (folder / "secrets").mkdir(parents=True, exist_ok=True)
    names = ["compose.yaml", *more]
    for name in names:
        (folder / name).write_text(text)
    (folder / ".rendered.json").write_text(json.dumps(sorted(names)))
    (folder / "secrets" / "env").write_text(env)
    return folder


def texts(folder: Path) -> dict[str, str]:
    """Return the project's files, without what is kept of it."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and ".previous" not in path.parts
    }


def test_what_stands_is_told_as_the_probe_tells_it(keep: ModuleType, load: Load, folder: Path) -> None:
    state = load("host_probe/onprem_llm_probe_state")
    write(folder, "r2", "template.jinja")
    for gone in ("template.jinja", "secrets/env", ".rendered.json"):
        seen, _ = state.project(folder, "")
        assert keep.standing(folder) == (seen["files"], seen["secrets_digest"])
        (folder / gone).unlink()


def test_what_was_replaced_is_put_back_and_what_came_new_goes(keep: ModuleType, folder: Path) -> None:
    stood, before = keep.standing(folder), texts(folder)
    assert keep.keep(folder)
    assert not keep.keep(folder)
    write(folder, "r3", "template.jinja", env="KEY='other'\n")
    assert keep.restore(folder, *stood)
    assert texts(folder) == before
    assert not keep.restore(folder, *stood)


def test_what_the_change_had_not_come_to_stays_though_something_older_was_kept(keep: ModuleType, folder: Path) -> None:
    keep.keep(folder)
    write(folder, "r3")
    stood = keep.standing(folder)
    assert not keep.restore(folder, *stood)
    assert (folder / "compose.yaml").read_text() == "r3"


def test_other_secrets_alone_are_put_back_too(keep: ModuleType, folder: Path) -> None:
    stood = keep.standing(folder)
    keep.keep(folder)
    write(folder, "r2", env="KEY='other'\n")
    assert keep.restore(folder, *stood)
    assert (folder / "secrets" / "env").read_text() == "KEY='k'\n"


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_of_another_time_is_not_put_back(keep: ModuleType, folder: Path, kept: bool) -> None:
    if kept:
        keep.keep(folder)
    write(folder, "somebody's")
    other = ({"compose.yaml": hashlib.sha256(b"r1").hexdigest()}, None)
    with pytest.raises(keep.KeepError, match=r"neither .*tiny-0 nor .*/\.previous holds what ran there"):
        keep.restore(folder, *other)
    assert (folder / "compose.yaml").read_text() == "somebody's"
