"""What several tests of this folder stand on."""

from typing import Any

import pytest
from upgraded_world import Rotation, World

from onprem_llm import upgrading


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    one = World()

    def rotation(host: str, *_: Any, back: bool, purpose: str = "", **__: Any) -> str:
        assert bool(purpose) is not back
        return Rotation(f"{'let in' if back else 'drain'} {host}")

    monkeypatch.setattr(upgrading, "look_whole", one.look)
    monkeypatch.setattr(upgrading, "_run", one.run)
    monkeypatch.setattr(upgrading, "locked", one.locked)
    monkeypatch.setattr(upgrading, "plan_rotation", rotation)
    for name in ("apply", "carry"):
        monkeypatch.setattr(upgrading, name, one.rotate)
    for name in ("record_event", "try_to_record"):
        monkeypatch.setattr(upgrading, name, lambda event, *_: one.happened.append(event["message"]))
    monkeypatch.setattr(upgrading.time, "sleep", lambda _: None)
    return one
