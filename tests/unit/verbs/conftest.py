"""A site's folder with the weights that model.yaml names."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onprem_llm.connection import Connection
from onprem_llm.locking import site_settings
from onprem_llm.run_events import RunResult

READ: dict[str, RunResult] = {}


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ansible read the settings of inventories that are the same, files beside them too, once: it takes long."""
    real = site_settings.run

    def run(playbook: str, connection: Connection, **words: Any) -> RunResult:
        folder = connection.inventory.parent
        files = [connection.inventory, *sorted(path for path in folder.glob("*_vars/**/*") if path.is_file())]
        texts = [(str(path.relative_to(folder)), path.read_text()) for path in files]
        key = json.dumps([playbook, repr(replace(connection, inventory=Path(connection.inventory.name))), texts])
        if key not in READ:
            READ[key] = real(playbook, connection, **words)
        return READ[key]

    monkeypatch.setattr(site_settings, "run", run)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the weights `./Tiny`, and keep all that is cached in it."""
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "Tiny"
    weights.mkdir()
    header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    (weights / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    for name in ("config.json", "tokenizer.json"):
        (weights / name).write_text("{}")
    return tmp_path
