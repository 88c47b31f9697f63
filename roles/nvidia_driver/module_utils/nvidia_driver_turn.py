# SPDX-License-Identifier: Apache-2.0
"""One at a time at a host's driver: whoever was told of Ctrl-C has left what was begun here to go on to its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import IO, Iterator

from ansible.module_utils.nvidia_driver_needs import DriverError

# The kernel lets it go however the program ends, and a reboot takes the file.
LOCK = Path("/run/onprem-llm-nvidia-driver.lock")
TRIES, PERIOD_S = 10, 0.2  # a look holds it for a moment


@contextlib.contextmanager
def turn(words: str) -> Iterator[None]:
    """Have the driver to oneself; others are told WORDS, what is done. DriverError where somebody is at work on it."""
    with LOCK.open("a+", encoding="utf-8") as file:
        for left in reversed(range(TRIES)):
            if _taken(file, fcntl.LOCK_EX):
                break
            if not left:
                raise DriverError(
                    f"found that {_said(file)} is at work on the driver, expected nobody. Wait until it has ended, "
                    "then run the same command again"
                )
            time.sleep(PERIOD_S)
        file.truncate(0)
        file.write(f"{os.getpid()} {int(time.time())} {words}")
        file.flush()
        yield


def at_work() -> str | None:
    """Say who is at work on the driver, since when, and at what; None where nobody is."""
    try:
        with LOCK.open(encoding="utf-8") as file:
            return None if _taken(file, fcntl.LOCK_SH) else _said(file)
    except FileNotFoundError:
        return None


def _taken(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _said(file: IO[str]) -> str:
    file.seek(0)
    pid, _, rest = file.read().partition(" ")
    since, _, words = rest.partition(" ")
    if not since.isdigit():
        return "another run"
    return f"process {pid} ({words}, for {max(0, int(time.time()) - int(since))} s)"
