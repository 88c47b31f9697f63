"""A program that runs on hosts as a unit: what its modules share, on both halves; systemd answers from a list."""

import base64
import importlib.util
import io
import json
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import ROLES, Load

PROGRAMS = {"fan_out": None, "network_check": "rounds"}
HOSTS = [{"name": "a", "address": "10.0.0.1"}, {"name": "b", "address": "10.0.0.2"}]
ORDER = {"rank": 0, "hosts": HOSTS, "port": 7570, "speed_port": 7571, "limit": 60}


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=PROGRAMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def action(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The action plugin of a role, found as Ansible finds it, whose module answers what `answer` is set to."""
    from ansible.plugins.action import ActionBase
    from ansible.plugins.loader import action_loader

    action_loader.add_directory(str(ROLES / "module_parts/action_plugins"))
    made = loaded(ROLES / f"{name}/action_plugins/{name}.py").ActionModule
    one = made.__new__(made)
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    one.answer, one.sent = {}, {}
    monkeypatch.setattr(made, "_execute_module", lambda self, **given: self.sent.update(given) or self.answer)
    return one


def run(action: Any, **arguments: object) -> Any:
    action._task = type("Task", (), {"args": arguments})
    return action.run(task_vars={"inventory_hostname": "a"})


def test_the_host_gets_the_program_whole(action: Any, name: str) -> None:
    run(action, state="started", run="r1")
    assert action.sent["module_name"] == name
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(action.sent["module_args"]["program"]))) as archive:
        found = {one: archive.read(one) for one in archive.namelist()}
    assert found == {f"{name}/{path.name}": path.read_bytes() for path in ROLES.glob(f"{name}/files/{name}/*.py")}
    assert f"{name}/__main__.py" in found


def test_it_is_sent_only_to_be_started(action: Any) -> None:
    run(action, state="looked_at", run="r1")
    assert action.sent["module_args"] == {"state": "looked_at", "run": "r1"}


def test_progress_says_what_it_counts(action: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_LLM_PROGRESS", str(tmp_path / "lines"))
    for status in ({"state": "starting"}, {"state": "running", "done": 3, "total": 8}):
        action.answer = {"status": status}
        assert run(action, state="looked_at", run="r1") == action.answer
    unit = {"unit": PROGRAMS[name]} if PROGRAMS[name] else {}
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert lines == [{"host": "a", "done": 3, "total": 8, **unit}]


class Systemd:
    """What is run; `live`: whether the unit is."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, ...]] = []
        self.live = True
        self.code = 0

    def __call__(self, *command: str) -> tuple[int, str]:
        self.runs.append(command)
        if command[0] == "systemd-run":
            return self.code, "no bus"
        return 0 if self.live else 3, ""


@pytest.fixture
def systemd(load: Load, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    load("book/book_event")  # puts module_utils in place
    from ansible.module_utils import onprem_llm_run_unit

    made = Systemd()
    monkeypatch.setattr(onprem_llm_run_unit, "run", made)
    return made


@pytest.fixture
def act(name: str, tmp_path: Path, systemd: Systemd) -> Any:
    module = loaded(ROLES / f"{name}/library/{name}.py")
    program = base64.b64encode(b"zip").decode()
    given = {"run": "r1", "folder": str(tmp_path), "order": ORDER, "secret": "s", "program": program, "measure": False}
    return lambda state: module.act({**given, "state": state})


def folder(name: str, tmp_path: Path) -> Path:
    return tmp_path / f"onprem-llm-{name.replace('_', '-')}-r1"


def test_started_looked_at_stopped(name: str, act: Any, systemd: Systemd, tmp_path: Path) -> None:
    assert act("started") == {"changed": True}
    there = folder(name, tmp_path)
    assert there.stat().st_mode & 0o777 == 0o700
    assert json.loads((there / "order.json").read_text()) == ORDER
    assert (there / "secret").stat().st_mode & 0o777 == 0o600
    firewall = (there / "firewall").read_text()
    assert "10.0.0.2" in firewall
    assert "10.0.0.1" not in firewall  # its own
    begun = next(one for one in systemd.runs if one[0] == "systemd-run")
    assert f"-m {name} " in begun[-1]
    status = {"state": "running", "done": 1, "total": 2, "error": ""}
    (there / "status.json").write_text(json.dumps(status))
    assert act("looked_at") == {"changed": False, "status": status, "ended": False}
    (there / "status.json").write_text(json.dumps({**status, "state": "done"}))
    assert act("looked_at")["ended"] is True
    ended = {**status, "state": "done"}
    assert act("stopped") == {"changed": True, "status": ended, "onprem_llm": {name: ended}}
    assert not there.exists()
    assert act("stopped") == {
        "changed": False, "status": {"state": "stopped"}, "onprem_llm": {name: {"state": "stopped"}},
    }  # fmt: skip


def test_a_process_that_is_gone_has_failed_and_says_its_last_words(
    name: str, act: Any, systemd: Systemd, tmp_path: Path
) -> None:
    act("started")
    (folder(name, tmp_path) / "log").write_text("Traceback\nKeyError: 'port'\n\n")
    systemd.live = False
    answer = act("looked_at")
    assert answer["ended"] is True
    assert answer["status"] == {"state": "failed", "error": "KeyError: 'port'"}


def test_what_cannot_be_started_leaves_nothing(name: str, act: Any, systemd: Systemd, tmp_path: Path) -> None:
    systemd.code = 1
    with pytest.raises(OSError, match="systemd-run failed: no bus"):
        act("started")
    assert not folder(name, tmp_path).exists()


def test_pairs_are_told_once_not_at_each_look(systemd: Systemd, tmp_path: Path) -> None:
    module = loaded(ROLES / "network_check/library/network_check.py")
    given = {"run": "r1", "folder": str(tmp_path)}
    there = folder("network_check", tmp_path)
    there.mkdir()
    (there / "status.json").write_text(json.dumps({"state": "done", "pairs": [1]}))
    assert module.act({**given, "state": "looked_at", "order": {}})["status"] == {"state": "done"}
    told = module.act({**given, "state": "stopped", "order": {}})
    assert told["onprem_llm"]["network_check"]["pairs"] == [1]
