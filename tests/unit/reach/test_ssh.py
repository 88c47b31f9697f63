"""The exact ssh command lines, and that a program which streams ends with us. Host "local" is this machine."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from onprem_llm import hostkeys, keyring
from onprem_llm.errors import OnpremError
from onprem_llm.hostkeys import Offered
from onprem_llm.ssh import AS_ROOT, WATCHED, Route, command_line, stream_route
from onprem_llm.ssh_config import jumps

LOCAL = Route("local", True, "local", None, None, None, ())
FAR = Route("far", False, "10.0.0.1", "2222", "ops", Path("/k"), ("-o", "ProxyJump=b"), ("-C",), become_password="s3")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="programs are started as root")


def test_the_whole_command_line() -> None:
    *options, address, script = command_line(FAR, ["docker", "logs", "-f", "a b"])
    assert options == [
        "ssh",
        *("-o", "StrictHostKeyChecking=yes"),
        *("-o", "BatchMode=yes"),
        *("-o", "NumberOfPasswordPrompts=1"),
        *("-o", "ControlMaster=no"),
        *("-o", "ControlPath=none"),
        *("-o", "Port=2222"),
        *("-o", "User=ops"),
        *("-o", "IdentityFile=/k"),
        *("-o", "ProxyJump=b"),
        "-C",
        *("-o", "ConnectTimeout=10"),
        *("-o", "ServerAliveInterval=15"),
    ]
    assert address == "10.0.0.1"
    assert script.startswith("env ASK=yes sh -c ")
    assert script.endswith("sh docker logs -f 'a b'")
    assert "s3" not in script


def test_a_local_host_needs_no_ssh() -> None:
    assert command_line(LOCAL, ["id"]) == ["env", "ASK=no", "sh", "-c", AS_ROOT, "sh", "sh", "-c", WATCHED, "sh", "id"]


def test_a_route_shows_no_password() -> None:
    assert "s3" not in repr(FAR)


@as_root
def test_stdin_arrives_as_it_is_and_ends() -> None:
    data = b"no newline at the end \x00\xff {{ braces }} $HOME"
    assert b"".join(stream_route(LOCAL, ["cat"], stdin=data)) == data


@as_root
def test_a_failing_program_says_why() -> None:
    with pytest.raises(OnpremError, match="exit code 3") as caught:
        list(stream_route(LOCAL, ["sh", "-c", "echo out; echo why >&2; exit 3"]))
    assert caught.value.details == "why"


@as_root
def test_the_program_ends_when_nobody_reads_on(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    output = stream_route(LOCAL, ["sh", "-c", f"echo $$ > {mark}; while sleep 0.1; do echo tick; done"])
    assert b"tick" in next(output)
    pid = int(mark.read_text())
    output.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


@as_root
def test_a_program_that_writes_nothing_ends_too() -> None:
    """Nothing but a signal ends it: it would never see that its output is closed."""
    output = stream_route(LOCAL, ["sh", "-c", "echo $$; exec sleep 60"])
    pid = int(next(output))
    began = time.monotonic()
    output.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{pid}").exists()
    assert time.monotonic() - began < 2


def test_jump_hosts_are_entered_with_the_same_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host 10.0.0.1\n  ProxyJump ops@one:2222,two\n")
    found = jumps(Route("far", False, "10.0.0.1", None, None, None, ("-F", str(config))))
    assert [jump.host for jump in found] == ["ops@one:2222", "two"]
    assert found[0].options == ("-F", str(config))


def test_an_unknown_key_is_shown_with_the_command_that_asks() -> None:
    offered = Offered("far", "[10.0.0.1]:2222", ("line",), "ED25519", "SHA256:x", Path("/kh"), ())
    text = hostkeys.unknown_text(offered, FAR)
    assert "ED25519 SHA256:x" in text
    assert "ssh -o StrictHostKeyChecking=ask -o Port=2222 -o User=ops" in text
    assert not offered.trusted


def test_a_changed_key_is_shown_with_both_fingerprints() -> None:
    offered = Offered("far", "far.example", ("line",), "ED25519", "SHA256:new", Path("/kh"), ("ED25519 SHA256:old",))
    text = hostkeys.changed_text(offered)
    assert "SHA256:new" in text
    assert "SHA256:old" in text
    assert "ssh-keygen -R 'far.example' -f /kh" in text


def test_a_key_with_a_passphrase_is_found_and_unlocked_for_this_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, passphrase in (("open", ""), ("locked", "pass phrase")):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    options = ("-F", "none", "-o", "IdentitiesOnly=yes")
    route = Route("far", False, "10.0.0.1", None, None, tmp_path / "locked", options)
    assert keyring.locked_keys([Route("open", False, "10.0.0.1", None, None, tmp_path / "open", options)]) == {}
    (key,) = keyring.locked_keys([route]).values()
    assert key.path == tmp_path / "locked"
    answers = iter(["wrong", "pass phrase"])
    monkeypatch.setattr(keyring.click, "prompt", lambda *_, **__: next(answers))
    stops: list[tuple[object, ...]] = []
    monkeypatch.setattr(keyring.atexit, "register", lambda *call: stops.append(call))
    assert keyring.unlock(key)
    assert keyring.locked_keys([route]) == {}, "the agent holds it now"
    for function, *arguments in reversed(stops):
        function(*arguments)  # type: ignore[operator]
