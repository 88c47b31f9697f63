"""0 of all requests fail through any change, at 20 requests a second, half of them streams."""

import pytest
from tests.load.changes import CHANGES, nobody_notices
from tests.load.served import Served


@pytest.mark.parametrize("name", CHANGES)
def test_nobody_notices(stub: Served, name: str) -> None:
    nobody_notices(stub, name, at_least=200)
