import shlex
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load

NASTY = 'it\'s $HOME `id` "x" \\ {{ y }}\nsecond line; more'


@pytest.fixture
def files(load: Load, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("compose_project/project_files")
    monkeypatch.setattr(module, "validate", lambda folder, staged: None)
    return module


@pytest.fixture
def secret(load: Load) -> ModuleType:
    return load("compose_project/secret_env")


def test_files_are_written_once_and_stale_ones_go(files: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "tiny-0"
    wanted = {"compose.yaml": b"a", "conf/template.jinja": b"b"}
    assert files.run(folder, wanted, False) == (["compose.yaml", "conf/template.jinja"], [])
    (folder / "notes.txt").write_text("somebody's")
    assert files.run(folder, wanted, False) == ([], [])
    (folder / "compose.yaml").write_text("edited")
    assert files.run(folder, {"compose.yaml": b"a"}, True) == (["compose.yaml"], ["conf/template.jinja"])
    assert files.run(folder, {"compose.yaml": b"a"}, False) == (["compose.yaml"], ["conf/template.jinja"])
    assert (folder / "notes.txt").exists()
    assert not (folder / "conf/template.jinja").exists()
    assert (folder / "compose.yaml").stat().st_mode & 0o777 == 0o644
    assert not list(folder.glob(".new-*"))


def test_nothing_is_replaced_when_compose_refuses(
    files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.run(tmp_path, {"compose.yaml": b"good"}, False)

    def refuse(folder: Path, staged: Path) -> None:
        assert (staged / "compose.yaml").read_bytes() == b"bad"
        raise files.ProjectError("no")

    monkeypatch.setattr(files, "validate", refuse)
    with pytest.raises(files.ProjectError):
        files.run(tmp_path, {"compose.yaml": b"bad"}, False)
    assert (tmp_path / "compose.yaml").read_bytes() == b"good"
    assert not list(tmp_path.glob(".new-*"))


def test_what_a_cut_off_run_left_is_swept(files: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ".new-abc").mkdir()
    files.run(tmp_path, {"compose.yaml": b"x"}, False)
    assert not (tmp_path / ".new-abc").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "secrets/env", "data/x", ".env"])
def test_names_that_leave_the_folder_are_refused(files: ModuleType, tmp_path: Path, name: str) -> None:
    with pytest.raises(files.ProjectError, match="may not have a file"):
        files.run(tmp_path, {"compose.yaml": b"", name: b""}, False)


def test_a_shell_reads_any_secret(secret: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(secret.content({"A": NASTY, "B": "", "C": "-n"}))
    read = subprocess.run(
        ["/bin/sh", "-c", f"set -a; . {shlex.quote(str(path))}; set +a; env -0"], stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    values = dict(item.split("=", 1) for item in read.split("\0") if item)
    assert (values["A"], values["B"], values["C"]) == (NASTY, "", "-n")
    assert secret.present(path) == {"A": NASTY, "B": "", "C": "-n"}


def arguments(tmp_path: Path, **more: Any) -> dict[str, Any]:
    entries = [{"name": "KEYS", "keys": ["one", "two"], "separator": ";"}]
    base = {"path": str(tmp_path / "p"), "keys_dir": str(tmp_path), "entries": entries, "names": [], "values": {}}
    return {**base, **more}


def test_secrets_are_made_of_keys_and_values(secret: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("k1\n")
    (tmp_path / "two").write_text("k2\n")
    changed, digest = secret.run(arguments(tmp_path, names=["T"], values={"T": "v"}), False)
    assert changed
    env = tmp_path / "p" / "secrets" / "env"
    assert env.read_text() == "KEYS='k1;k2'\nT='v'\n"
    assert (env.stat().st_mode & 0o777, env.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (tmp_path / "p" / ".env").read_text() == f"ONPREM_LLM_SECRETS={digest}\n"
    # A value that is not given again keeps what the host has; a new key makes a new digest.
    assert secret.run(arguments(tmp_path, names=["T"]), False) == (False, digest)
    (tmp_path / "two").write_text("k3\n")
    assert secret.run(arguments(tmp_path, names=["T"]), False)[1] != digest


def test_a_missing_secret_is_named_without_a_value(secret: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(secret.SecretError, match="the key one cannot be read"):
        secret.run(arguments(tmp_path), False)
    with pytest.raises(secret.SecretError, match="no value was given for the secret T"):
        secret.run(arguments(tmp_path, entries=[], names=["T"]), False)


def container(**state: Any) -> dict[str, Any]:
    running = {"Status": "running", "StartedAt": "2026-11-21T03:00:00Z", "ExitCode": 0, "OOMKilled": False}
    restarts = state.pop("restarts", 0)
    return {"Id": "c", "Name": "/tiny-0-vllm-1", "RestartCount": restarts, "State": {**running, **state}}


@pytest.mark.parametrize(
    ("now", "before", "dead"),
    [
        (container(), {}, False),
        (container(Status="exited", ExitCode=3), {}, True),
        (container(Status="created", StartedAt="0001-01-01T00:00:00Z"), {}, False),
        # Stopped before we came, and not started yet.
        (container(Status="exited"), {"c": container(Status="exited")}, False),
        # It had restarted before we came; that is not news.
        (container(restarts=4), {"c": container(restarts=4)}, False),
    ],
)
def test_a_dead_container_is_told_from_a_starting_one(
    load: Load, now: dict[str, Any], before: dict[str, Any], dead: bool
) -> None:
    up = load("compose_project/project_up")
    if dead:
        with pytest.raises(up.StartError, match="tiny-0-vllm-1 ended with exit code 3"):
            up.check_alive({"c": now}, before)
    else:
        up.check_alive({"c": now}, before)


def test_a_restarted_container_is_a_dead_one(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    up = load("compose_project/project_up")
    monkeypatch.setattr(up, "docker", lambda *_, **__: "1\n137\n")
    with pytest.raises(up.StartError, match="exit code 137, killed because"):
        up.check_alive({"c": container(restarts=1, OOMKilled=True)}, {})


def test_what_compose_says_is_shortened_to_what_matters(load: Load) -> None:
    up = load("compose_project/project_up")
    progress = " Network t_default  Creating\n Container t-vllm-1  Starting\n"
    assert up.explain(progress + "Error: port is already allocated\n", {}) == ("Error: port is already allocated", None)
    tries = [{"Output": "Traceback\n  File x\nURLError: refused\n"}]
    starting = container(Health={"Status": "starting", "Log": tries})
    message, blamed = up.explain(progress + "application not healthy after 3s\n", {"c": starting})
    assert message.startswith("application not healthy after 3s; if it needs longer, raise timeouts.start")
    assert message.endswith("the last health check said: URLError: refused")
    assert blamed == "c"


def test_secrets_are_struck_out_of_the_log(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up = load("compose_project/project_up")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "env").write_text("K='first-key;second-key'\nSHORT='on'\n")
    monkeypatch.setattr(up, "docker", lambda *_, **__: "on with second-key and first-key;second-key\n")
    assert up.last_lines("c", 5, tmp_path) == "on with ******** and ********"


@pytest.mark.parametrize(
    ("taken_over", "stopped"),
    [(False, [("stop", "-t", "3", "ours")]), (True, [])],
    ids=["only what it waited for", "nothing once another run has begun"],
)
def test_a_failed_start_stops(
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    taken_over: bool,
    stopped: list[tuple[str, ...]],
) -> None:
    up = load("compose_project/project_up")
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(up, "STARTERS", tmp_path)
    monkeypatch.setattr(up, "containers", lambda _: {"ours": container(), "of-the-next-run": container()})
    monkeypatch.setattr(up, "docker", lambda *words, **_: calls.append(words) or "")
    mark = up.claim("tiny-0")
    if taken_over:
        up.claim("tiny-0")
    params = {"name": "tiny-0", "path": str(tmp_path), "log_lines": 5}
    message = up.failure(params, up.StartError("it died"), {"ours", "gone"}, mark)
    assert calls == stopped
    assert ("left to that one" in message) is taken_over


def test_what_is_not_to_run_is_made_and_left_stopped(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = load("compose_project/project_up")
    (tmp_path / "docker").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    params = {"name": "tiny-1", "path": str(tmp_path), "recreate": True, "wait": 60, "state": "made"}
    assert not up.up(params, set())
    verbs = [line.partition("--project-name tiny-1 ")[2] for line in (tmp_path / "asked").read_text().splitlines()]
    assert [verb for verb in verbs if verb] == ["up --no-start --remove-orphans --force-recreate", "stop"]
    (tmp_path / "docker").write_text('#!/bin/sh\ncase "$*" in *up*) echo "no such image"; exit 1;; esac\n')
    with pytest.raises(up.StartError, match="no such image"):
        up.up(params, set())


def test_down_leaves_what_others_wrote(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    down = load("compose_project/project_down")
    monkeypatch.setattr(down, "docker", lambda *_, **__: "")
    folder = tmp_path / "tiny-0"
    for name in ("compose.yaml", ".env", "conf/a", "data/db", "secrets/env", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".rendered.json").write_text('["compose.yaml", "conf/a"]')
    params = {"name": "tiny-0", "path": str(folder), "purge": False, "timeout": 1}
    assert down.down(params, False)
    assert sorted(str(one.relative_to(folder)) for one in folder.rglob("*")) == ["data", "data/db", "notes.txt"]
    assert not down.down(params, False)
    assert down.down({**params, "purge": True}, False)
    assert not folder.exists()


class Asked:
    """What docker was asked; `running` answers `docker ps`."""

    def __init__(self, running: str) -> None:
        self.running = running
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, *words: str, limit: int = 60) -> str:
        self.commands.append(words)
        return self.running if words[0] == "ps" else ""


def test_a_project_that_runs_is_stopped_once_and_keeps_its_files(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = load("compose_project/project_down")
    docker = Asked("one")
    monkeypatch.setattr(down, "docker", docker)
    assert down.stop("wide-0", 30, False)
    assert docker.commands[-1] == ("compose", "--project-name", "wide-0", "stop", "--timeout", "30")
    docker.running = ""
    assert not down.stop("wide-0", 30, False)
    assert len(docker.commands) == 3


@pytest.mark.parametrize(("state", "waits"), [("healthy", True), ("started", False)])
def test_a_project_that_is_only_to_start_is_not_waited_for(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, waits: bool
) -> None:
    up = load("compose_project/project_up")
    commands: list[list[str]] = []
    monkeypatch.setattr(up, "containers", lambda project: {})
    monkeypatch.setattr(up, "wait", lambda command, *_: commands.append(command))
    up.up({"name": "wide-0", "path": str(tmp_path), "recreate": False, "wait": 5, "state": state}, set())
    assert ("--wait" in commands[0]) is waits
