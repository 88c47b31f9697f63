"""Keys with a passphrase: found, unlocked once, held by an agent for as long as this command runs."""

import atexit
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from onprem_llm.output import note
from onprem_llm.private_files import askpass
from onprem_llm.ssh import Route
from onprem_llm.ssh_config import jumps, settings

TRIES = 3
# Seconds after which an agent forgets the key, should we be killed before we can remove it.
LIFETIME = 6 * 3600


@dataclass(frozen=True)
class Key:
    """A private key in a file."""

    path: Path


def locked_keys(routes: Sequence[Route]) -> dict[str, Key]:
    """Return host → the first of its keys that has a passphrase and is in no agent."""
    held = _held()
    found: dict[str, Key] = {}
    for route in routes:
        for path in identity_files(route):
            if path.is_file() and _locked(path) and _public(path) not in held:
                found[route.host] = Key(path)
                break
    return found


def identity_files(route: Route) -> list[Path]:
    """Return the keys that ssh would try on a host, by its own account; those of its jump hosts after them."""
    ways = [route, *jumps(route)]
    paths = [Path(value).expanduser() for way in ways for name, value in settings(way) if name == "identityfile"]
    return list(dict.fromkeys(paths))


def unlock(key: Key) -> bool:
    """Ask for the passphrase and give the key to an agent; False when no passphrase fitted."""
    _ensure_agent()
    for _ in range(TRIES):
        passphrase = click.prompt(f"Passphrase for {key.path}", hide_input=True, err=True)
        with askpass(passphrase, once=True) as extra:
            command = ["ssh-add", "-q", "-t", str(LIFETIME), str(key.path)]
            added = subprocess.run(command, env={**os.environ, **extra}, capture_output=True, timeout=30, check=False)
        if added.returncode == 0:
            atexit.register(_forget, key)
            return True
        note("That passphrase does not fit.")
    return False


def _locked(path: Path) -> bool:
    """Say whether a private key has a passphrase: without one, its public half can be computed."""
    command = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return tried.returncode != 0 and "passphrase" in tried.stderr


def _public(path: Path) -> str:
    """Return type and data of the public half, as agents list it: `-l` reads it without the passphrase."""
    command = ["ssh-keygen", "-l", "-f", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.split()
    return shown[1] if len(shown) > 1 else ""


def _held() -> set[str]:
    """Return the fingerprints of the keys that the user's agent holds."""
    return {words[1] for line in _listed()[1].splitlines() if len(words := line.split()) > 1}


def _listed() -> tuple[int, str]:
    """Return ssh-add's exit code (2: no agent) and list; an agent that hangs, as a forwarded one can, is none."""
    try:
        listed = subprocess.run(["ssh-add", "-l"], capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return 2, ""
    return listed.returncode, listed.stdout


def _ensure_agent() -> None:
    """Use the user's agent; start one for this command where there is none."""
    if _listed()[0] in (0, 1):
        return  # 1: an agent without keys
    agent = subprocess.Popen(["ssh-agent", "-D"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    if agent.stdout is None:
        raise AssertionError("stdout is a pipe")
    # SSH_AUTH_SOCK=/tmp/…/agent.1; export SSH_AUTH_SOCK;
    line = agent.stdout.readline()
    os.environ["SSH_AUTH_SOCK"] = line.partition("=")[2].partition(";")[0]
    atexit.register(_stop, agent)


def _stop(agent: subprocess.Popen[str]) -> None:
    agent.terminate()
    agent.wait(timeout=5)


def _forget(key: Key) -> None:
    """Leave somebody's own agent as it was found."""
    subprocess.run(["ssh-add", "-q", "-d", str(key.path)], capture_output=True, timeout=10, check=False)
