"""0 of all requests fail through any change: the real engine, at the largest rate that is fair on this machine."""

import pytest
from tests.load.changes import CHANGES, nobody_notices
from tests.load.served import Served


@pytest.mark.parametrize("name", CHANGES)
def test_nobody_notices(loaded: Served, name: str) -> None:
    nobody_notices(loaded, name, at_least=100)
