"""Chains that are stopped when their test ends."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fanout.kit import PROGRAM, Chain
from tests.unit.bootstrap.conftest import role_module as role_module

sys.path.insert(0, str(PROGRAM))


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Callable[..., Chain]]:
    made: list[Chain] = []

    def make(count: int, root: str = "", **more: Any) -> Chain:
        made.append(Chain(tmp_path / root, count, **more))
        return made[-1]

    yield make
    for one in made:
        one.stop()
