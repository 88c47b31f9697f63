"""Restore: which host a backup goes onto, what keeps it from going there, and what is brought up afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onprem_llm.apply import carry, record_event
from onprem_llm.backups import Backup, make, put_back
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, RefusedError, UnreachableError
from onprem_llm.host_moves import Leaving, resettle
from onprem_llm.look import View, failures_text, gateway_of, look, look_whole
from onprem_llm.output import Progress, note
from onprem_llm.person import person
from onprem_llm.planning.hosts_change import Resettled, plan_mark
from onprem_llm.run_lock import locked
from onprem_llm.spec.site import parse_site
from onprem_llm.wanted import load_site

AGAIN = "the same command with --force, since the book is there now"


@dataclass(frozen=True)
class Restoration:
    """A backup and the host that it goes onto; `lost`: the gateway host of before, which does not answer.

    `saves`: where the book that is replaced is saved.
    """

    backup: Backup
    host: str
    lost: str | None
    saves: Path | None
    lines: tuple[str, ...]


def prepare(
    backup: Backup, host: str | None, connection: Connection, progress: Progress, *, force: bool
) -> Restoration:
    """Look, and raise where the backup cannot go onto that host. Changes nothing."""
    view = look(connection, progress)
    target = _target(backup, host, view)
    _check_others(view, target, connection)
    silent = backup.host in {one.host for one in view.failures}
    lost = backup.host if silent and backup.host != target else None
    _check_target(view, target, force=force)
    lines = [
        f"{backup.path}: of {backup.host}, {backup.made}, "
        + ", ".join(f"{part} {count} files" for part, count in backup.files.items()),
        f"{target} becomes the gateway host: book, keys, certificate authority and chats are put there.",
    ]
    if lost:
        lines.append(f"{lost} does not answer and is declared lost: its replicas are started elsewhere.")
    if backup.host != target:
        lines.append("Clients need its address from then on, unless the site has a shared one (gateway.address).")
    replaced = view.current.host(target)
    saves = None
    if replaced and replaced.book and replaced.book.deployments:
        saves = backup.path.with_name(f"{backup.path.name}.before")
        lines.append(f"What {target} has now is saved first: {saves}")
        if saves.exists():
            raise InvalidError(f"{saves} is there already, and a backup is never written over", hint="move it away")
    return Restoration(backup, target, lost, saves, tuple(lines))


def _target(backup: Backup, host: str | None, view: View) -> str:
    names = [one.name for one in view.current.hosts]
    recorded = view.current.gateway
    target = host or (recorded.name if recorded else backup.host)
    if target in names:
        return target
    silent = [one for one in view.failures if one.host == target]
    if silent:
        raise UnreachableError(
            f"{target} did not answer",
            details=failures_text(silent),
            hint="name the host that becomes the gateway: --gateway HOST",
        )
    raise InvalidError(
        f"no host is called {target!r}; the inventory has: {', '.join(names)}",
        hint="name the host that becomes the gateway: --gateway HOST",
    )


def _check_others(view: View, target: str, connection: Connection) -> None:
    recorded = view.current.gateway
    if recorded is not None and recorded.name != target:
        raise InvalidError(
            f"{recorded.name} is the gateway host, and it answers",
            hint=f"restore onto it, or move the gateway: onprem-llm gateway move {target}",
        )
    gating = [
        one
        for one in view.failures
        if one.host not in connection.may_be_silent and not (one.unreachable and connection.skip_unreachable)
    ]
    if gating:
        raise UnreachableError(
            f"{len(gating)} host{'s' if len(gating) > 1 else ''} did not answer; nothing was changed",
            details=failures_text(gating),
            hint="mend what is said above, or leave out what does not answer: --skip-unreachable",
        )


def _check_target(view: View, target: str, *, force: bool) -> None:
    host = view.current.host(target)
    if host is None or not host.engine.running:
        raise InvalidError(f"{target} is not prepared: its container engine does not run",
                           hint=f"onprem-llm bootstrap INVENTORY --limit {target}")  # fmt: skip
    if host.book and host.book.deployments and not force:
        raise RefusedError(
            f"{target} has a book with deployments: {', '.join(host.book.deployments)}",
            hint="the backup would replace it; if that is what you want, add --force",
        )


def carry_out(
    plan: Restoration, folders: Sequence[Path], connection: Connection, progress: Progress, *, break_lock: bool
) -> list[Resettled]:
    """Put it there, declare the old gateway host lost, and bring up what the book has, one after another."""
    with locked(plan.host, f"restore onto {plan.host}", connection, progress, break_lock=break_lock):
        if plan.saves:
            settings = look(connection, progress).current.site_settings()
            make(plan.host, parse_site(settings, str(connection.inventory)), plan.saves, connection, progress)
        keys = put_back(plan.backup, plan.host, "gateway", connection, progress)
        for line in keys_lines(plan, keys):
            note(line)
        try:
            return _brought_up(plan, folders, connection, progress)
        except OnpremError as error:
            error.hint = f"{error.hint or 'mend what is said above'}; then go on: {AGAIN}"
            raise
        except KeyboardInterrupt:
            note(f"Stopped in the middle: the backup is on {plan.host}, and not all of it runs. Go on: {AGAIN}")
            raise


def _brought_up(
    plan: Restoration, folders: Sequence[Path], connection: Connection, progress: Progress
) -> list[Resettled]:
    event = {"action": "restore", "by": person(), "message": f"of {plan.backup.host}, {plan.backup.made}"}
    record_event(event, plan.host, connection)
    view = look_whole(connection, progress, again=True)
    if plan.lost:
        site = load_site(view.current, connection.inventory)
        mark = plan_mark(site, view.current, gateway_of(view), plan.lost, "lost", "host remove", plan.lost)
        if not mark.is_noop:
            carry(mark, connection, progress)
    leaving = Leaving(plan.lost or "", "lost", None, tuple(folders))
    return resettle(list(view.current.book), leaving, connection, progress)


def keys_lines(plan: Restoration, keys: Mapping[str, Any]) -> list[str]:
    """Say what became of client keys: those of the backup, and what the host knew of them."""
    made, lines = plan.backup.made, []
    if keys.get("unread"):
        lines.append(f"{plan.host}: its record of client keys could not be read; that of the backup took its place.")
    if keys and not keys.get("known"):
        lines.append(
            f"{plan.host} knew no client keys: any that were revoked after {made} work again, unless another gateway "
            "host knows of it. Look at them with onprem-llm key list, and revoke these again."
        )
    if keys.get("revoked"):
        lines.append(f"Keys of the backup that were revoked after {made} stay revoked: {', '.join(keys['revoked'])}")
    if keys.get("kept"):
        lines.append(f"Keys that were made after {made} go on working: {', '.join(keys['kept'])}")
    return lines
