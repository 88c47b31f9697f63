"""Services of the gateway host, on a made-up systemd."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import module

NAME = "onprem-llm-usage.service"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module; `said` are the commands that change something, `active` and `stale` what systemd answers."""
    found = module("gateway_service")
    monkeypatch.setattr(found, "UNITS", tmp_path / "units")
    monkeypatch.setattr(found, "WANTED_BY", tmp_path / "units" / "multi-user.target.wants")
    state: Any = found
    state.said, state.active, state.stale = [], False, False

    def systemctl(*words: str) -> tuple[int, str]:
        if words[0] == "is-active":
            return (0 if state.active else 3), ""
        if words[0] == "show":
            return 0, f"NeedDaemonReload={'yes' if state.stale else 'no'}"
        state.said.append(" ".join(words))
        return 0, ""

    monkeypatch.setattr(found, "systemctl", systemctl)
    return found


def params(tmp_path: Path, unit: str = "[Service]\n") -> dict[str, Any]:
    return {"name": NAME, "folder": str(tmp_path / "lib"), "unit": unit, "files": {"run": "#!/bin/sh\n", "part.py": ""}}


def test_a_new_service_is_started_without_a_reload_of_systemd(service: Any, tmp_path: Path) -> None:
    """daemon-reload, and enable with it, can take running containers their GPUs."""
    assert service.run(params(tmp_path), True)
    assert not list(tmp_path.iterdir())
    assert service.run(params(tmp_path), False)
    assert service.said == [f"start {NAME}"]
    assert (service.WANTED_BY / NAME).readlink() == service.UNITS / NAME
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "lib").iterdir()} == {
        "run": 0o755,
        "part.py": 0o644,
    }
    service.active = True
    assert not service.run(params(tmp_path), False)
    assert service.said == [f"start {NAME}"]


def test_a_changed_unit_is_read_and_a_changed_program_restarted(service: Any, tmp_path: Path) -> None:
    service.run(params(tmp_path), False)
    service.said, service.active = [], True
    assert service.run({**params(tmp_path), "files": {"run": "#!/bin/bash\n"}}, False)
    assert service.said == [f"restart {NAME}"]
    service.said, service.stale = [], True
    assert service.run(params(tmp_path, "[Service]\nNice=5\n"), False)
    assert service.said == ["daemon-reload", f"restart {NAME}"]


def test_a_service_that_somebody_disabled_starts_at_boot_again(service: Any, tmp_path: Path) -> None:
    service.run(params(tmp_path), False)
    service.active = True
    (service.WANTED_BY / NAME).unlink()
    assert service.run(params(tmp_path), False)
    assert (service.WANTED_BY / NAME).is_symlink()
