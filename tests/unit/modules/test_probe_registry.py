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


BLOB = "data/docker/registry/v2/blobs/sha256/ab/" + "ab" * 32


@pytest.fixture
def stray(registry: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a chain has left of a blob of 16 MiB: as long as it will be, with 1 MiB of it there."""
    monkeypatch.setattr(registry, "RUN", folder.parent / "run")
    assert registry.strays(folder) == 0
    (folder / BLOB).mkdir(parents=True)
    with (folder / BLOB / "data.partial").open("wb") as file:
        file.write(b"x" * 2**20)
        file.truncate(16 * 2**20)
    return folder / BLOB


def test_blobs_that_no_image_has_are_counted_as_they_lie_on_the_disk(
    registry: ModuleType, folder: Path, stray: Path
) -> None:
    assert 2**20 <= registry.strays(folder) < 2 * 2**20
    shutil.rmtree(folder / "data" / "docker" / "registry" / "v2" / "repositories")
    before = registry.strays(folder)
    assert before > 2**20, "nothing names what else is there either"
    shutil.rmtree(stray)
    assert 0 < registry.strays(folder) < before


@pytest.mark.parametrize("name", ["onprem-llm-fan-out-0a1b", "systemd/transient/onprem-llm-fan-out-0a1b.service"])
def test_while_hosts_pass_one_on_they_are_no_strays(registry: ModuleType, folder: Path, stray: Path, name: str) -> None:
    at_work = folder.parent / "run" / name
    at_work.mkdir(parents=True)
    assert registry.strays(folder) == 0
    at_work.rmdir()
    assert registry.strays(folder) > 0


def test_what_is_counted_is_what_the_store_removes(load: Load, registry: ModuleType, folder: Path, stray: Path) -> None:
    store = load("image_registry/registry_store")
    layer(folder, "docker.io/a:1").unlink()
    for link in (folder / "data").glob("**/_layers/**/link"):
        link.unlink()
    assert store.keep_only(folder / "data", set(registry.stored(folder)) or {"sha256:" + "0" * 64}, False)
    assert not stray.exists()
    assert registry.strays(folder) == 0


def test_the_probe_says_it_of_a_host_without_a_project_too(
    load: Load, folder: Path, registry: ModuleType, stray: Path
) -> None:
    module = load("host_probe/host_probe")
    module.registry_part.RUN = registry.RUN
    found = module.probe({**{name: one.get("default") for name, one in module.ARGUMENTS.items()},
                          "data_root": str(folder.parent), "book_dir": str(folder.parent / "book"),
                          "weights_dir": str(folder.parent / "weights")})  # fmt: skip
    assert found["registry_strays"] == registry.strays(folder) > 0
    assert "registry" not in found["projects"]
