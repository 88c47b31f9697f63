"""Real parts: docker-registry on loopback, skopeo, apt against this machine's mirror, pip against its index."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onprem_llm.locking.blobs import Blobs

from .registry import Registry, start

TOOLS = {"docker-registry": "docker-registry", "skopeo": "skopeo"}


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Install what is missing where we may; services are not started."""
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if not missing:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip(f"these tests need {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=environment
    )


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from _running(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from _running(tmp_path_factory.mktemp("closed"), password=True)


def _running(folder: Path, *, password: bool = False) -> Iterator[Registry]:
    one = start(folder, password=password)
    yield one
    one.process.terminate()
    one.process.wait(10)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ONPREM_LLM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "cache"


@pytest.fixture
def blobs(cache: Path) -> Blobs:
    return Blobs()
