"""One change at a time: the lock that a run holds on the gateway host."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, RefusedError
from onprem_llm.output import Progress, human_seconds, note
from onprem_llm.person import person
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.stop_signals import kept_stops

# A lock outlives a control host that lost power by at most this long; a transfer of days is what it must not cut off.
LOCK_SECONDS = 48 * 3600


@contextmanager
def locked(
    gateway: str, what: str, connection: Connection, progress: Progress, *, break_lock: bool = False
) -> Iterator[None]:
    """Hold the inventory's lock, a transient systemd unit on the gateway host. Others are told `what` is done.

    RefusedError says who has it. KeyboardInterrupt where somebody wanted us to stop while it was let go.
    """
    who = f"{person()} pid {os.getpid()} ({what})"
    if break_lock:
        _lock("break", who, gateway, connection)
    try:
        held = _lock("acquire", who, gateway, connection)
    except KeyboardInterrupt:
        # The host may have given it before we were stopped; only our own is let go.
        _release(who, gateway, connection)
        raise
    if not held.get("acquired"):
        age = held.get("age")
        since = f", for {human_seconds(age)}" if isinstance(age, int | float) else ""
        raise RefusedError(
            f"{gateway}: another run holds the lock: {held.get('owner')}{since}",
            hint="wait for it; if that run is dead, add --break-lock",
        )
    try:
        progress.host(gateway, "ok", "lock taken")
        yield
    finally:
        stopped = _release(who, gateway, connection)
    if stopped:
        raise KeyboardInterrupt


def _release(who: str, gateway: str, connection: Connection) -> bool:
    """Let the lock go, at a second Ctrl-C too: it ends by itself within the time that the playbook gives it.

    Return whether somebody wanted us to stop meanwhile. A gateway that cannot be reached now must not hide why the run
    ended.
    """
    with kept_stops() as stopped:
        try:
            _lock("release", who, gateway, connection)
        except (OnpremError, OSError) as error:
            said = error.message if isinstance(error, OnpremError) else str(error)
            note(f"The lock on {gateway} could not be released: {said}. The next run needs --break-lock.")
    return stopped.is_set()


def _lock(action: str, who: str, gateway: str, connection: Connection) -> dict[str, object]:
    result = run(
        "lock.yml",
        connection,
        hosts=[gateway],
        variables={
            "onprem_llm_lock_action": action,
            "onprem_llm_lock_owner": who,
            "onprem_llm_lock_seconds": LOCK_SECONDS,
        },
        asking=action != "release",  # a question that no Ctrl-C leaves
    )
    raise_for_failures(result, doing=f"asking for the lock ({action})")
    lock = result.returned.get(gateway, {}).get("lock")
    if not isinstance(lock, dict):
        raise OnpremError(f"{gateway}: the lock could not be read", hint="run the command again")
    return lock
