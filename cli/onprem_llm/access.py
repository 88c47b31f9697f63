"""Hosts that do not let us in yet: what a person can confirm or type is asked once, and what cannot be is explained."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from onprem_llm import hostkeys, keyring
from onprem_llm.connection import Connection
from onprem_llm.output import Progress
from onprem_llm.run_events import RunResult
from onprem_llm.ssh import routes

# The last is all that ssh says when a jump host was in the way, whatever the reason.
KEY_REFUSED = re.compile(
    r"Host key verification failed|IDENTIFICATION HAS CHANGED|host key is known|by UNKNOWN port", re.IGNORECASE
)
NOT_LET_IN = re.compile(r"Permission denied|Too many authentication failures|by UNKNOWN port")


def open_up(result: RunResult, connection: Connection, progress: Progress | None) -> tuple[RunResult, tuple[str, ...]]:
    """Ask what must be asked to enter the unreachable hosts of `result`.

    Returns the result with failures that say more, and the hosts that are worth another try; none without a terminal.
    """
    strange, refused = _matching(result, KEY_REFUSED), _matching(result, NOT_LET_IN)
    if not strange and not refused:
        return result, ()
    ways = routes(connection, list(dict.fromkeys(strange + refused)))
    asking = sys.stdin.isatty()
    with _paused(progress):
        said, opened = hostkeys.settle([ways[host] for host in strange], asking=asking)
        locked = keyring.locked_keys([ways[host] for host in refused if host not in said])
        unlocked = {key: asking and keyring.unlock(key) for key in dict.fromkeys(locked.values())}
    for host, key in locked.items():
        if unlocked[key]:
            opened.add(host)
        else:
            said[host] = f"the key {key.path} has a passphrase, and no agent holds it"
    told = tuple(replace(failure, message=said.get(failure.host, failure.message)) for failure in result.failures)
    return replace(result, failures=told), tuple(host for host in ways if host in opened and host not in said)


def _matching(result: RunResult, pattern: re.Pattern[str]) -> list[str]:
    return [failure.host for failure in result.failures if failure.unreachable and pattern.search(failure.message)]


@contextmanager
def _paused(progress: Progress | None) -> Iterator[None]:
    """Keep what is drawn out of the way of a question."""
    if progress is None:
        yield
        return
    progress.__exit__(None, None, None)
    try:
        yield
    finally:
        progress.__enter__()
