"""Every failure that people meet on the way to a host has a remedy; the messages are as the programs wrote them."""

from pathlib import Path

import pytest

from onprem_llm.errors import ExitCode, OnpremError, UnreachableError
from onprem_llm.remedies import not_begun, remedy
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.runner import raise_for_failures


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("No ED25519 host key is known for 10.0.0.1 and you have requested strict checking.", "not in known_hosts"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "ssh-keygen -R"),
        ("Missing sudo password", "--ask-become-pass"),
        ("Incorrect sudo password", "did not take the password"),
        ("sudo: no password was provided\nsudo: 1 incorrect password attempt", "did not take the password"),
        ("nosudo is not in the sudoers file.", "may not use sudo"),
        ("/bin/sh: 1: sudo: not found", "no sudo on host-1"),
        ("The module interpreter '/usr/bin/python3' was not found.", "apt-get install python3"),
        ("/bin/sh: 1: /usr/bin/python3: not found", "apt-get install python3"),
        ("ops@10.0.0.1: Permission denied (publickey).", "--private-key"),
        ("ssh: Could not resolve hostname nix.invalid: Name or service not known", "does not resolve"),
        ("ssh: connect to host 10.0.0.1 port 22: Connection refused", "is sshd running"),
        ("ssh: connect to host 10.0.0.1 port 22: No route to host", "does not answer"),
        ("ssh: connect to host 10.0.0.1 port 22: Connection timed out", "does not answer"),
        (
            "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535",
            "ProxyJump",
        ),
        ("kex_exchange_identification: read: Connection reset by peer", "hung up"),
        (
            'Data could not be sent to remote host "10.0.0.1". Make sure this host can be reached over ssh:',
            "went silent",
        ),
        ("Failed to connect to the host via ssh: ", "went silent"),
        ("the key /k has a passphrase, and no agent holds it", "ssh-add"),
    ],
)
def test_remedy(message: str, advice: str) -> None:
    assert advice in (remedy(message, "host-1") or "")


def test_an_unknown_failure_has_no_made_up_remedy() -> None:
    assert remedy("the moon is wrong", "host-1") is None


@pytest.mark.parametrize(
    ("talk", "limit", "words"),
    [
        ("[ERROR]: Attempting to decrypt but no vault secrets found.", None, "ansible-vault"),
        (
            "[ERROR]: Specified inventory, host pattern and/or --limit leaves us with no hosts to target.",
            "nix",
            "“nix”",
        ),
        ("[WARNING]: provided hosts list is empty, only localhost is available", None, "no hosts"),
        ("[ERROR]: Failed to parse inventory: YAML parsing failed: x.yml:3", None, "cannot read this inventory"),
    ],
)
def test_a_run_that_never_began_names_the_inventory(talk: str, limit: str | None, words: str) -> None:
    error = not_begun([talk], Path("/s/inventory.ini"), limit)
    assert error.exit_code == ExitCode.VALIDATION
    assert "/s/inventory.ini" in error.message
    assert words in error.message
    assert error.hint


def test_one_error_names_every_bad_host_and_the_others_state() -> None:
    failures = (
        HostFailure("b", "Look", "Connection refused", unreachable=True),
        HostFailure("c", "Look", "Missing sudo password", unreachable=False),
    )
    with pytest.raises(UnreachableError) as caught:
        raise_for_failures(RunResult(("a", "b", "c", "d"), {}, {}, failures), doing="testing")
    details = caught.value.details or ""
    assert caught.value.message == "2 of 4 hosts failed while testing: b, c"
    assert "b: unreachable at “Look”\n    Connection refused\n    what to do: nothing listens there" in details
    assert details.endswith("ok: a, d")


def test_failed_is_not_unreachable_and_well_is_no_error() -> None:
    raise_for_failures(RunResult(("a",), {}, {}, ()), doing="testing")
    with pytest.raises(OnpremError) as caught:
        raise_for_failures(RunResult(("a",), {}, {}, (HostFailure("a", "t", "m", False),)), doing="testing")
    assert caught.value.exit_code == ExitCode.FAILED


def test_a_program_on_the_host_that_is_refused_is_no_matter_of_sshd() -> None:
    assert remedy("health check: Connection refused", "gpu-1", reached=True) is None
    assert "sshd" in str(remedy("ssh: connect to host gpu-1 port 22: Connection refused", "gpu-1"))
