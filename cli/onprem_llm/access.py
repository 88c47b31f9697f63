"""Hosts that do not let us in yet: what a person can confirm or type is asked once, and what cannot be is explained."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from onprem_llm import hostkeys, keyring
from onprem_llm.connection import Connection
from onprem_llm.output import Progress
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.ssh import routes

KEY_REFUSED = re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED")
NOT_LET_IN = re.compile(r"Permission denied|Too many authentication failures")


def open_up(result: RunResult, connection: Connection, progress: Progress | None) -> tuple[RunResult, tuple[str, ...]]:
    """Ask what must be asked to enter the unreachable hosts of `result`.

    Returns the result with failures that say more, and the hosts that are worth another try; none without a terminal.
    """
    strange = [
        failure.host for failure in result.failures if failure.unreachable and KEY_REFUSED.search(failure.message)
    ]
    refused = [
        failure.host for failure in result.failures if failure.unreachable and NOT_LET_IN.search(failure.message)
    ]
    if not strange and not refused:
        return result, ()
    ways = routes(connection, strange + refused)
    asking = sys.stdin.isatty()
    again: list[str] = []
    with _paused(progress):
        said = hostkeys.settle([ways[host] for host in strange], asking=asking)
        again += [host for host in strange if host not in said]
        locked = keyring.locked_keys([ways[host] for host in refused])
        said.update(_unlock(locked, asking=asking))
        again += [host for host in refused if host in locked and host not in said]
    return replace(result, failures=tuple(_told(failure, said) for failure in result.failures)), tuple(again)


def _unlock(locked: dict[str, keyring.Key], *, asking: bool) -> dict[str, str]:
    """Load the keys that need a passphrase; return host → what is wrong where that was not possible."""
    said = {}
    for key in dict.fromkeys(locked.values()):
        hosts = [host for host, its in locked.items() if its == key]
        if asking and keyring.unlock(key):
            continue
        text = f"the key {key.path} has a passphrase, and no agent holds it: load it with ssh-add {key.path}"
        said.update(dict.fromkeys(hosts, text))
    return said


def _told(failure: HostFailure, said: dict[str, str]) -> HostFailure:
    text = said.get(failure.host)
    return replace(failure, message=text) if text else failure


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
