# SPDX-License-Identifier: Apache-2.0
"""Wait for what the program of a schedule has begun: it holds its lock until that is done."""

from __future__ import annotations

import fcntl
import time

WAIT_S = 400.0  # docker's commands take no longer
POLL_S = 0.2


def wait_for(lock, seconds=None):
    """Return whether nothing goes on any more. `lock`: the program's file, whose folder is made where it is not."""
    lock.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    end = time.monotonic() + (WAIT_S if seconds is None else seconds)
    with lock.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > end:
                    return False
                time.sleep(POLL_S)
            else:
                return True
