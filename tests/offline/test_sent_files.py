"""send_files by ansible-playbook, as roles call it: whole, again, and refused before anything is written."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.offline.roles_here import ROLES

CONTENTS = {"large": bytes(range(256)) * 300_000, "sub/small": b"small", "none": b""}


def send(tmp_path: Path, target: Path, together: bool, **more: Any) -> tuple[int, str]:
    """Return (tasks that changed something, output)."""
    source = tmp_path / "source"
    for name, data in CONTENTS.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    files = [
        {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in CONTENTS.items()
    ]
    folder = {"source": str(source), "path": str(target), "files": files, "send": list(CONTENTS), **more}
    play = tmp_path / "play.yml"
    task = {"send_files": {"folders": [folder], "together": together}}
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["file_transfer"], "tasks": [task]}]))
    ended = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", str(play),
         "-e", f"ansible_python_interpreter={sys.executable}"], capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_ROLES_PATH": str(ROLES), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"},
    )  # fmt: skip
    said = ended.stdout + ended.stderr
    return int(said.partition("changed=")[2].split()[0]) if "changed=" in said else -1, said


@pytest.mark.parametrize("together", [True, False], ids=["together", "chunks"])
def test_all_comes_and_a_second_run_sends_nothing(tmp_path: Path, together: bool) -> None:
    target = tmp_path / "target"
    for changed in (1, 0):
        found, said = send(tmp_path, target, together)
        assert (found, "failed=0" in said) == (changed, True), said
    assert {name: (target / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert not list(target.rglob("*.partial"))


@pytest.mark.parametrize("together", [True, False], ids=["together", "chunks"])
def test_nothing_goes_through_a_folder_that_is_a_link(tmp_path: Path, together: bool) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "sub").symlink_to(outside)
    changed, said = send(tmp_path, target, together)
    assert changed <= 0
    assert f"{target}/sub is a link, expected a folder: remove it" in said
    assert "Traceback" not in said
    assert list(outside.iterdir()) == []


def test_a_list_with_a_name_under_which_another_grows_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    _, said = send(tmp_path, target, False, files=[{"path": "none.partial", "size": 0}], send=["none"])
    assert f"{target}/none.partial is the name under which {target}/none grows" in said
    assert not target.exists()
