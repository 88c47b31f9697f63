"""Apply a plan: take the lock, make sure that the hosts are still as planned on, run the steps, let the lock go."""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, RefusedError
from onprem_llm.look import look_whole
from onprem_llm.output import Progress, human_seconds, note
from onprem_llm.planning.types import Plan, Step
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import order_file, run_folder, write_plan
from onprem_llm.secret_values import read_values

# A lock outlives a control host that lost power by at most this long; a transfer of days is what it must not cut off.
LOCK_SECONDS = 48 * 3600

DOING = {
    "stage": "bringing images and weights",
    "apply": "starting containers",
    "remove": "removing containers",
    "record": "writing the book",
}


def apply(plan: Plan, connection: Connection, progress: Progress, *, break_lock: bool = False) -> None:
    """Carry a plan to the hosts. RefusedError if somebody holds the lock or the hosts moved since it was made."""
    values = {project: read_values(references, f"secrets of {project}") for project, references in plan.secrets.items()}
    with locked(plan, connection, progress, break_lock=break_lock), run_folder() as folder:
        refuse_if_moved(plan, connection, progress)
        write_plan(plan, folder)
        for number, step in enumerate(plan.steps):
            _run_step(step, number, folder, connection, progress, values)


def _run_step(
    step: Step, number: int, folder: Path, connection: Connection, progress: Progress, values: dict[str, dict[str, str]]
) -> None:
    result = run(
        step.playbook,
        connection,
        hosts=step.hosts,
        variables={
            "onprem_llm_seam": str(folder),
            "onprem_llm_order_file": str(order_file(folder, number)),
        },
        secrets={"onprem_llm_secrets": values} if step.kind == "apply" else None,
        progress=progress,
        title=step.title,
    )
    raise_for_failures(result, doing=DOING[step.kind])
    for host, values in result.returned.items():
        for image, why in values.get("images_kept", {}).items():
            note(f"{host}: image {image[:19]} stays: {why}")


def refuse_if_moved(plan: Plan, connection: Connection, progress: Progress) -> None:
    """Look again under the lock: what was shown must be what is done."""
    now = look_whole(connection, progress).current.digest()
    if now != plan.based_on:
        raise RefusedError(
            f"the hosts changed since this plan was made (it is based on {plan.based_on}, they are at {now})",
            hint="make the plan again, read it, and apply that",
        )


def owner(plan: Plan) -> str:
    """Say who holds the lock: a person, a machine, a process and what it does."""
    try:
        person = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        person = f"uid {os.getuid()}"
    return f"{person}@{socket.gethostname()} pid {os.getpid()} ({plan.verb} {plan.deployment})"


@contextmanager
def locked(plan: Plan, connection: Connection, progress: Progress, *, break_lock: bool = False) -> Iterator[None]:
    """Hold the inventory's lock, a transient systemd unit on the gateway host."""
    who = owner(plan)
    if break_lock:
        _lock("break", who, plan.gateway, connection)
    try:
        held = _lock("acquire", who, plan.gateway, connection)
    except KeyboardInterrupt:
        # The host may have given it before we were stopped; only our own is let go.
        _release(who, plan.gateway, connection)
        raise
    if not held.get("acquired"):
        age = held.get("age")
        since = f", for {human_seconds(age)}" if isinstance(age, int | float) else ""
        raise RefusedError(
            f"{plan.gateway}: another run holds the lock: {held.get('owner')}{since}",
            hint="wait for it; if that run is dead, add --break-lock",
        )
    progress.host(plan.gateway, "ok", "lock taken")
    try:
        yield
    finally:
        _release(who, plan.gateway, connection)


def _release(who: str, gateway: str, connection: Connection) -> None:
    """Let the lock go. A gateway that cannot be reached now must not hide why the run ended."""
    try:
        _lock("release", who, gateway, connection)
    except OnpremError as error:
        note(f"The lock on {gateway} could not be released: {error.message}. The next run needs --break-lock.")


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
    )
    raise_for_failures(result, doing=f"asking for the lock ({action})")
    lock = result.returned.get(gateway, {}).get("lock")
    if not isinstance(lock, dict):
        raise OnpremError(f"{gateway}: the lock could not be read", hint="run the command again")
    return lock
