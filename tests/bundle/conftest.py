"""A connected machine for each test, and a whole bundle that tests may copy."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bundle.kit import Bench, Connected, Keys


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A machine that nobody changes, with a whole signed bundle in `bundle`."""
    root = tmp_path_factory.mktemp("made")
    bench = Bench(root, Connected(root / "here").make(), Keys(root / "keys").make())
    bench.create(root / "bundle")
    return bench


@pytest.fixture
def bench(made: Bench, tmp_path: Path) -> Iterator[Bench]:
    """The same machine with a folder of its own to work in."""
    yield Bench(tmp_path, made.here, made.keys)
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def bundle(made: Bench, tmp_path: Path) -> Path:
    """A copy of the whole bundle, to be damaged."""
    return Path(shutil.copytree(made.root / "bundle", tmp_path / "bundle"))
