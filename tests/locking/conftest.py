"""Real parts: docker-registry on loopback, skopeo, apt against this machine's mirror, pip against its index."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from onprem_llm.locking.blobs import Blobs

from .registry import Registry, running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("registry")) as one:
        yield one


@pytest.fixture(scope="session")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("closed"), password=True) as one:
        yield one


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ONPREM_LLM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "cache"


@pytest.fixture
def blobs(cache: Path) -> Blobs:
    return Blobs()
