"""Fault scenarios: the stub engine, which starts in a second, at 20 requests a second."""

from collections.abc import Iterator

import pytest
from tests.load.rehearsal import Rehearsal, rehearsal
from tests.load.served import Served, served, stub_text

__all__ = ["rehearsal"]


@pytest.fixture(scope="module")
def stub(rehearsal: Rehearsal) -> Iterator[Served]:
    """Two stub replicas on two hosts; they stay for the next file, which takes them as they are."""
    with served(rehearsal, "stub", stub_text(rehearsal, "stub"), stays=True) as one:
        yield one
