"""The part of the probe about a registry's folder, over one that `bundle load` writes."""

import hashlib
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onprem_llm.bundle.images import REF
from onprem_llm.bundle.registry_view import blob_path, write_registry

from .conftest import Load


@pytest.fixture
def registry(load: Load) -> ModuleType:
    return load("host_probe/onprem_llm_probe_registry")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, each with a layer of its own, and one configuration."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()

    def blob(data: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(data).hexdigest()
        (blobs / sha256).write_bytes(data)
        return {"digest": f"sha256:{sha256}", "size": len(data)}

    manifests = []
    for ref in ("docker.io/a:1", "docker.io/b:1"):
        content = {"schemaVersion": 2, "config": blob(b"{}"), "layers": [blob(ref.encode())]}
        manifests.append({**blob(json.dumps(content).encode()), "annotations": {REF: ref}})
    write_registry({"manifests": manifests}, blobs, tmp_path / "registry" / "data")
    return tmp_path / "registry"


def layer(folder: Path, ref: str) -> Path:
    return folder / "data" / blob_path(hashlib.sha256(ref.encode()).hexdigest())


def test_an_image_counts_while_all_its_blobs_are_there(registry: ModuleType, folder: Path) -> None:
    both = registry.stored(folder)
    assert len(both) == 2
    layer(folder, "docker.io/a:1").unlink()
    (left,) = registry.stored(folder)
    assert left in both
    layer(folder, "docker.io/b:1").write_bytes(b"short")
    assert registry.stored(folder) == []


def test_a_folder_that_is_gone_or_is_none_of_a_registrys_has_none(registry: ModuleType, folder: Path) -> None:
    for path in (folder / "data").rglob("data"):
        if path.is_file():
            path.write_bytes(b"[1]")
    assert registry.stored(folder) == []
    shutil.rmtree(folder / "data")
    assert registry.stored(folder) == []
    assert registry.stored(folder / "absent") == []


def test_the_probe_says_it_of_that_project_alone(load: Load, folder: Path, registry: ModuleType) -> None:
    for name in ("registry", "tiny-0"):
        (folder.parent / name).mkdir(exist_ok=True)
        (folder.parent / name / "compose.yaml").write_text("{}")
    found, _ = load("host_probe/host_probe").projects(str(folder.parent), "", {})
    assert found["registry"]["stored"] == registry.stored(folder)
    assert "stored" not in found["tiny-0"]
