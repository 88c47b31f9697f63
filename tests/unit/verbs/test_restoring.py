"""Which host a backup may go onto."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import recorded_facts as made
from click.testing import CliRunner

from onprem_llm import backups, restoring
from onprem_llm.backups import Backup
from onprem_llm.commands import restore
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, RefusedError, UnreachableError
from onprem_llm.look import View
from onprem_llm.output import Progress
from onprem_llm.restoring import Restoration
from onprem_llm.run_events import HostFailure, RunResult

HERE = Connection(Path("/inventory.ini"), may_be_silent=("lab-1",))


class Quiet:
    def step(self, title: str, hosts: object) -> None: ...
    def host(self, host: str, state: str, detail: str = "") -> None: ...
    def bytes(self, host: str, done: int, total: int) -> None: ...


def prepare(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    off: tuple[str, ...] = (),
    host: str | None = None,
    force: bool = False,
    recorded: bool = True,
    deployed: bool = False,
    connection: Connection = HERE,
) -> Restoration:
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=2, gateway=n == 1 and recorded) for n in (1, 2, 3)}
    if deployed:
        facts = made.applied(made.planned(facts, made.deployment(made.MODEL.format(
            name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000))), facts)  # fmt: skip
    seen = {name: state for name, state in facts.items() if name not in off}
    failures = tuple(HostFailure(name, "Look", "no route", unreachable=True) for name in off)
    view = View(made.current(seen, off), failures, "salt")
    monkeypatch.setattr(restoring, "look", lambda *_: view)
    backup = Backup(tmp_path / "b.tar.gz", "lab-1", "2026-11-21", "0", {"book": 4}, 1, "0")
    progress: Progress = Quiet()
    return restoring.prepare(backup, host, connection, progress, force=force)


def test_a_gateway_host_that_is_gone_is_declared_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = prepare(monkeypatch, tmp_path, off=("lab-1",), host="lab-2")
    assert (plan.host, plan.lost, plan.saves) == ("lab-2", "lab-1", None)
    assert any("lab-1 does not answer and is declared lost" in line for line in plan.lines)


def test_which_host_takes_its_place_must_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as error:
        prepare(monkeypatch, tmp_path, off=("lab-1",))
    assert "--gateway HOST" in (error.value.hint or "")
    with pytest.raises(InvalidError, match="lab-9"):
        prepare(monkeypatch, tmp_path, off=("lab-1",), host="lab-9")


def test_two_gateways_are_never_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="lab-1 is the gateway host, and it answers"):
        prepare(monkeypatch, tmp_path, host="lab-2")


def test_a_fresh_gateway_host_takes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = prepare(monkeypatch, tmp_path)
    assert (plan.host, plan.lost) == ("lab-1", None)


def test_a_book_with_deployments_is_saved_before_it_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match="tiny"):
        prepare(monkeypatch, tmp_path, deployed=True)
    plan = prepare(monkeypatch, tmp_path, deployed=True, force=True)
    assert plan.saves == tmp_path / "b.tar.gz.before"
    plan.saves.write_text("x")
    with pytest.raises(OnpremError, match="never written over"):
        prepare(monkeypatch, tmp_path, deployed=True, force=True)


def test_another_silent_host_is_an_error_unless_it_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError):
        prepare(monkeypatch, tmp_path, off=("lab-1", "lab-3"), host="lab-2")
    skipping = Connection(Path("/inventory.ini"), skip_unreachable=True, may_be_silent=("lab-1",))
    plan = prepare(monkeypatch, tmp_path, off=("lab-1", "lab-3"), host="lab-2", connection=skipping)
    assert plan.host == "lab-2"


def test_a_killed_one_is_repeated_by_taking_its_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backup = Backup(tmp_path / "b.tar.gz", "lab-1", "2026-11-21", "0", {"book": 4}, 1, "0")
    backup.path.touch()
    (tmp_path / "inventory.ini").touch()
    broken = []

    @contextmanager
    def locked(*_: object, break_lock: bool = False) -> Iterator[None]:
        broken.append(break_lock)
        raise RefusedError("another run holds the lock")
        yield

    monkeypatch.setattr(restore, "read", lambda _: backup)
    monkeypatch.setattr(restore, "prepare", lambda *_, **__: Restoration(backup, "lab-1", None, None, ()))
    monkeypatch.setattr(restoring, "locked", locked)
    words = [str(backup.path), "--yes", "-i", str(tmp_path / "inventory.ini")]
    for more in ([], ["--break-lock"]):
        assert isinstance(CliRunner().invoke(restore.command, [*words, *more]).exception, RefusedError)
    assert broken == [False, True]


def plan_of(tmp_path: Path) -> Restoration:
    return Restoration(Backup(tmp_path / "b", "lab-1", "noon", "0", {"book": 4}, 1, "0"), "lab-1", None, None, ())


def test_what_became_of_keys_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = View(made.current({"lab-1": made.host("lab-1", 1, gpus=2, gateway=True)}), (), "salt")
    for name in ("locked", "record_event", "resettle"):
        monkeypatch.setattr(restoring, name, lambda *_, **__: nullcontext())
    monkeypatch.setattr(restoring, "look_whole", lambda *_, **__: view)
    monkeypatch.setattr(backups, "run", lambda *_, **__: RunResult(("lab-1",), {"lab-1": {"keys_restored": {
        "known": True, "kept": ["carol"], "revoked": ["bob"], "unread": False}}}, {}, ()))  # fmt: skip
    restoring.carry_out(plan_of(tmp_path), (), HERE, Quiet(), break_lock=False)
    said = capsys.readouterr().err
    assert "Keys of the backup that were revoked after noon stay revoked: bob" in said
    assert "Keys that were made after noon go on working: carol" in said
    assert "work again" not in said


def test_a_host_that_knows_no_keys_cannot_know_what_was_revoked(tmp_path: Path) -> None:
    found = {"known": False, "kept": [], "revoked": [], "unread": True}
    unread, again = restoring.keys_lines(plan_of(tmp_path), found)
    assert "could not be read" in unread
    assert "any that were revoked after noon work again" in again
    assert restoring.keys_lines(plan_of(tmp_path), {}) == [], "a backup without keys"


def test_what_fails_once_the_book_is_there_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("locked", "put_back", "record_event"):
        monkeypatch.setattr(restoring, name, lambda *_, **__: nullcontext())
    monkeypatch.setattr(restoring, "keys_lines", lambda *_: [])
    for failing in (OnpremError("no host can carry tiny-0", hint="free a GPU"), KeyboardInterrupt()):

        def fail(*_: object, error: BaseException = failing, **__: object) -> None:
            raise error

        monkeypatch.setattr(restoring, "look_whole", fail)
        with pytest.raises(type(failing)):
            restoring.carry_out(plan_of(tmp_path), (), HERE, Quiet(), break_lock=False)
        said = getattr(failing, "hint", None) or capsys.readouterr().err
        assert "go on: the same command with --force" in said.lower()
