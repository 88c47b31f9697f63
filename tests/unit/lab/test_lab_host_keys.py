"""The ssh host keys of a rehearsal host, as docker hands them over."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from onprem_llm.errors import OnpremError
from onprem_llm.lab import hosts
from onprem_llm.lab.state import Host

HOST = Host("lab-1", "10.213.0.11", None)
KEYS = "ecdsa-sha2-nistp256 AAAA root@lab-1\nssh-ed25519 BBBB root@lab-1\nssh-rsa CCCC root@lab-1\n"
WHOLE = f"{KEYS}{hosts.END}\n"


@pytest.fixture
def docker_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Let docker hand over one text after another, and time pass with each."""

    def told(texts: list[str]) -> None:
        left: Iterator[str] = iter(texts)
        clock = iter(range(0, 1000, 5))
        monkeypatch.setattr(hosts.time, "monotonic", lambda: float(next(clock)))
        monkeypatch.setattr(hosts.time, "sleep", lambda _: None)
        monkeypatch.setattr(
            hosts.engine, "exec_root", lambda name, argv: subprocess.CompletedProcess(argv, 0, next(left), "")
        )

    return told


@pytest.mark.parametrize("first", ["", KEYS[:40], KEYS, f"ecdsa-sha2-nistp256 AAAA root@lab-1\n{hosts.END}\n"])
def test_keys_that_are_not_whole_are_read_again(docker_says: Callable[[list[str]], None], first: str) -> None:
    docker_says([first, WHOLE])
    assert hosts.public_keys(HOST) == ["ecdsa-sha2-nistp256 AAAA", "ssh-ed25519 BBBB", "ssh-rsa CCCC"]


def test_a_host_without_keys_is_named(docker_says: Callable[[list[str]], None]) -> None:
    docker_says([f"{hosts.END}\n"] * 100)
    with pytest.raises(OnpremError, match="host lab-1: /etc/ssh has no ed25519 host key") as raised:
        hosts.public_keys(HOST)
    assert "onprem-llm-lab-host-keys" in (raised.value.hint or "")
