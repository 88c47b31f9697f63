"""Sizes as people write them."""

import pytest

from onprem_llm.errors import UsageError
from onprem_llm.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("700 MB", 7 * 10**8), ("4GiB", 2**32), ("1.5kb", 1500), ("12", 12)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--bandwidth") == size


@pytest.mark.parametrize("text", ["", "GB", "4 parsecs", "-4GB", "0", "nan", "infGB", "4GBGB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="--bandwidth"):
        parse_size(text, "--bandwidth")
