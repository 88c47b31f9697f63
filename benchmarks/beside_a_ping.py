"""What benchmarks share that measure a command beside `ansible all -m ping` on the same hosts, in turn."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 5
FORKS = 16
# What the command line sets for its own runs, so that both sides have it.
TUNED = {
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s "
    "-o ServerAliveInterval=15 -o ServerAliveCountMax=12",
    "ANSIBLE_HOST_KEY_CHECKING": "True",
}


def run(*command: str, folder: Path) -> str:
    """Run a command in the site's folder and return its output; end with all of it where it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **TUNED},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def in_turn(
    command: tuple[str, ...], inventory: str, folder: Path, look: Callable[[str], None]
) -> tuple[list[float], list[float]]:
    """Return the seconds of each ping and of each command, ROUNDS of both, after one of each to warm up.

    `look` gets what the command printed, each time.
    """
    ping = ("ansible", "all", "-i", inventory, "-m", "ansible.builtin.ping", "--forks", str(FORKS))
    pings, commands = [], []
    for number in range(ROUNDS + 1):
        ping_seconds, _ = _timed(*ping, folder=folder)
        seconds, text = _timed(*command, "--forks", str(FORKS), folder=folder)
        look(text)
        if number:
            pings.append(ping_seconds)
            commands.append(seconds)
    return pings, commands


def _timed(*command: str, folder: Path) -> tuple[float, str]:
    begun = time.perf_counter()
    text = run(*command, folder=folder)
    return time.perf_counter() - begun, text
