"""A site's folder with the weights that model.yaml names."""

from pathlib import Path
from typing import Any

import pytest

from onprem_llm.connection import Connection
from onprem_llm.locking import site_settings
from onprem_llm.run_events import RunResult


@pytest.fixture
def site_of_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ansible says of an inventory without settings: that it does is tried in tests/ansible_runs."""

    def run(playbook: str, connection: Connection, **words: Any) -> RunResult:
        assert playbook == "site.yml"
        hosts = tuple(line.split()[0] for line in connection.inventory.read_text().splitlines())
        return RunResult(hosts, {host: {"site": {}} for host in hosts}, {}, ())

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
