"""A site's folder with the weights that model.yaml names."""

from pathlib import Path

import pytest


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
