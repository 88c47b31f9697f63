"""Small files that travel together: what of them arrives, and what is sent again."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PLUGIN = Path(__file__).resolve().parents[3] / "roles/file_transfer/action_plugins/send_files.py"


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("send_files_action", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Wire:
    """A host that is this machine; `damage` spoils what goes over the wire the first time."""

    def __init__(self, plugin: ModuleType, damage: bytes = b"") -> None:
        self.action = plugin.ActionModule.__new__(plugin.ActionModule)
        self.action._low_level_execute_command = self.run
        self.damage, self.runs = damage, 0

    def run(self, command: str, sudoable: bool, in_data: bytes) -> dict[str, Any]:
        self.runs += 1
        if self.damage and self.runs == 1:
            in_data = in_data.replace(self.damage, b"?" * len(self.damage))
        done = subprocess.run(["/bin/sh", "-c", command], input=in_data, capture_output=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}


def transfers(plugin: ModuleType, source: Path, target: Path, contents: dict[str, bytes]) -> list[Any]:
    files = []
    for name, data in contents.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
        os.utime(source / name, (1, 1))
        files.append({"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        (target / name).parent.mkdir(parents=True, exist_ok=True)  # as receive_file has done
    return [plugin.Transfer({"source": str(source), "path": str(target), "files": files}, name) for name in contents]


CONTENTS = {"one": b"first", "deep/er/two": b"second", "same": b"first", "none": b""}


def test_all_arrive_in_one_command(plugin: ModuleType, tmp_path: Path) -> None:
    wire = Wire(plugin)
    wire.action._unpack(transfers(plugin, tmp_path / "s", tmp_path / "t", CONTENTS), sys.executable)
    assert wire.runs == 1
    assert {name: (tmp_path / "t" / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert (tmp_path / "t/one").stat().st_mtime == 1
    assert oct((tmp_path / "t/one").stat().st_mode & 0o777) == "0o644"
    assert not list((tmp_path / "t").rglob("*.partial"))


def test_what_arrives_damaged_goes_again_and_nothing_else(plugin: ModuleType, tmp_path: Path) -> None:
    wire = Wire(plugin, b"second")
    wire.action._unpack(transfers(plugin, tmp_path / "s", tmp_path / "t", CONTENTS), sys.executable)
    assert wire.runs == 2
    assert {name: (tmp_path / "t" / name).read_bytes() for name in CONTENTS} == CONTENTS


def test_a_file_that_changed_on_the_control_host_is_not_sent(plugin: ModuleType, tmp_path: Path) -> None:
    some = transfers(plugin, tmp_path / "s", tmp_path / "t", CONTENTS)
    (tmp_path / "s/one").write_bytes(b"other")
    with pytest.raises(plugin.AnsibleActionFail, match="changed since it was planned"):
        Wire(plugin).action._unpack(some, sys.executable)
    assert not (tmp_path / "t/one").exists()


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "b/../../a", "", "."])
def test_a_path_that_leaves_the_folder_is_refused(plugin: ModuleType, tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(plugin.AnsibleActionFail, match=f"found the path {name!r}, expected one below /srv/it"):
        plugin.Transfer({"source": str(tmp_path / "s"), "path": "/srv/it", "files": []}, name)


def test_nothing_is_sent_where_a_file_would_grow_under_the_name_of_another(plugin: ModuleType, tmp_path: Path) -> None:
    """Also where the other one is on the host already."""
    some = transfers(plugin, tmp_path / "s", tmp_path / "t", {"x": b"1", "x.partial": b"2"})
    folder = {"path": str(tmp_path / "t"), "files": [{"path": "x.partial"}, {"path": "x"}], "send": ["x"]}
    with pytest.raises(plugin.AnsibleActionFail, match=r"x\.partial is the name under which .*/t/x grows"):
        plugin.check_growing([folder], some[:1])
    plugin.check_growing([{**folder, "send": ["x.partial"]}], some[1:])


@pytest.mark.parametrize("small", [True, False], ids=["together", "chunks"])
def test_a_link_that_came_in_between_is_not_written_through(plugin: ModuleType, tmp_path: Path, small: bool) -> None:
    some = transfers(plugin, tmp_path / "s", tmp_path / "t", {"one": b"first"})
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "t/one.partial").symlink_to(tmp_path / "precious")
    action = Wire(plugin).action
    with pytest.raises(plugin.AnsibleActionFail, match="cannot write"):
        action._unpack(some, sys.executable) if small else action._write(some[0], 0, b"first", "", sys.executable)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_batch_is_no_larger_than_a_chunk(plugin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "CHUNK", 10)
    some = transfers(plugin, tmp_path / "s", tmp_path / "t", {str(number): b"12345" for number in range(5)})
    assert [len(batch) for batch in plugin.batches(some)] == [2, 2, 1]
    assert [Path(one.path).name for batch in plugin.batches(some) for one in batch] == list("01234")
