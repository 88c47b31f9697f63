"""What the scenarios rely on: replicas are counted to the end, or the scenario fails."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from tests.load.served import Served


def served(up: Callable[[str], list[str]]) -> Served:
    return Served(SimpleNamespace(site=None, up=up), "stub", "")  # type: ignore[arg-type]


def test_replicas_are_counted_while_the_block_runs() -> None:
    with served(lambda _: ["stub-0", "stub-1"]).watched() as seen:
        time.sleep(1.2)
    assert seen == [2, 2]


def test_a_count_that_fails_is_no_proof_that_replicas_were_there() -> None:
    def up(_: str) -> list[str]:
        raise AssertionError("the gateway's runtime socket does not answer")

    with pytest.raises(AssertionError, match="does not answer"), served(up).watched():
        time.sleep(0.7)
    with pytest.raises(ZeroDivisionError), served(up).watched():
        raise ZeroDivisionError  # what went wrong first is what is told
