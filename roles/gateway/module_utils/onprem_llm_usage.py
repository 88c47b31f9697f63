# SPDX-License-Identifier: Apache-2.0
"""What each client key used: HAProxy counts a process at a time, the ledger adds up over reloads and restarts.

Runs as part of a module, and in the service onprem-llm-usage, which shares this file.
"""

import contextlib
import fcntl
import json
import os
import re
import time

from ansible.module_utils.onprem_llm_haproxy import HaproxyError, NotRunningError
from ansible.module_utils.onprem_llm_write import put

LEDGER = "usage.json"
LOCK = ".usage.lock"
VERSION = 1
# Of the configuration's section without peers: peers would let an old worker's counts overwrite a new one's, and the
# table of a proxy is emptied as soon as its worker is told to end.
TABLE = "_count/usage"
# Where each counter is, and where its upper 32 bits are.
COUNTERS = {"requests": (0, None), "prompt_tokens": (1, 4), "completion_tokens": (2, 5), "refused": (3, None)}
FORGET = 3 * 86400  # seconds after which a process that nobody saw is gone for good; an old worker ends within an hour
ENTRY = re.compile(r"\bkey=(\S+)")
COUNTER = re.compile(r"\bgpc\(?(\d+)\)?=(\d+)")


def nothing():
    """Return the usage of a key that was never used."""
    return dict.fromkeys(COUNTERS, 0)


def identity(info):
    """Return what tells a process from all others: its start and its number. None from a process that has ended."""
    found = dict(line.split(": ", 1) for line in info.splitlines() if ": " in line)
    if "Pid" not in found or "Start_time_sec" not in found:
        return None
    return f"{found['Start_time_sec']}-{found['Pid']}"


def counters(answer):
    """Return {key: [count, …]} from the answer to `show table`.

    A key may have two entries: where its first two requests come in one instant, each thread of HAProxy 3.0 makes one.
    """
    found = {}
    for line in answer.splitlines():
        key = ENTRY.search(line)
        if key and not line.startswith("#"):
            words = {int(index): int(value) for index, value in COUNTER.findall(line)}
            numbers = [words.get(low, 0) + (words.get(high, 0) << 32) for low, high in COUNTERS.values()]
            before = found.get(key.group(1), [0] * len(COUNTERS))
            found[key.group(1)] = [old + new for old, new in zip(before, numbers)]
    return found


def fold(ledger, processes, now):
    """Add to the ledger what {process: {key: [count, …]}} counted since it was last seen; return whether it changed."""
    changed = False
    for process, counts in processes.items():
        seen = ledger["processes"].setdefault(process, {"counts": {}})
        for key, numbers in counts.items():
            before = seen["counts"].get(key, [0] * len(COUNTERS))
            if any(new < old for new, old in zip(numbers, before)):
                before = [0] * len(COUNTERS)  # an entry that HAProxy had dropped starts again at nothing
            added = [new - old for new, old in zip(numbers, before)]
            if any(added):
                total = ledger["totals"].setdefault(key, [0] * len(COUNTERS))
                ledger["totals"][key] = [old + new for old, new in zip(total, added)]
                changed = True
            seen["counts"][key] = numbers
        changed = changed or "seen" not in seen
        seen["seen"] = now
    for process in [one for one, seen in ledger["processes"].items() if now - seen["seen"] > FORGET]:
        del ledger["processes"][process]
        changed = True
    return changed


def empty(now):
    """Return a new ledger."""
    return {"version": VERSION, "since": now, "totals": {}, "processes": {}}


def read(path, now):
    """Return the ledger; HaproxyError where it is damaged."""
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
        if ledger["version"] != VERSION or not isinstance(ledger["totals"], dict):
            raise ValueError("not a ledger of this version")
    except FileNotFoundError:
        return empty(now)
    except (ValueError, KeyError, TypeError) as error:
        raise HaproxyError(
            f"the record of usage {path} cannot be read ({error}); put back a backup, or remove it to begin anew"
        ) from None
    return ledger


def book(folder, processes):
    """Fold processes into the ledger below `folder` and return it."""
    now = int(time.time())
    descriptor = os.open(str(folder / LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        ledger = read(folder / LEDGER, now)
        if fold(ledger, processes, now):
            put(folder / LEDGER, json.dumps(ledger))
    finally:
        os.close(descriptor)
    return ledger


def running(gateway):
    """Return {process: {key: [count, …]}} of every worker; nothing where no gateway runs."""
    found = {}
    with contextlib.suppress(NotRunningError):
        for worker in gateway.workers():
            process = identity(worker.ask("show info"))
            if process:
                found[process] = counters(worker.ask(f"show table {TABLE}"))
    return found


def collect(folder, gateway):
    """Return {key: {counter: number}}, up to this moment."""
    ledger = book(folder, running(gateway))
    return {key: dict(zip(COUNTERS, numbers)) for key, numbers in ledger["totals"].items()}
