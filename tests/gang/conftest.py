from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gang.ranks import Gang, gang_of


@pytest.fixture
def gang(tmp_path: Path) -> Iterator[Gang]:
    with gang_of(tmp_path) as made:
        yield made
