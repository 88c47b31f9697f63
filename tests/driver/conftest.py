"""A host for each file, made anew."""

import os
from collections.abc import Iterator

import pytest
from tests.driver.kit import Host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A bare host; it goes with the file, whatever becomes of it."""
    one = Host(tmp_path_factory.mktemp("driver"))
    try:
        yield one.up()
    finally:
        if not os.environ.get("ONPREM_LLM_KEEP_LAB"):
            one.down()
