"""`onprem-llm check` without its trial against `ansible all -m ping` on the same hosts: what does a look cost?

Makes a lab of its own (ONPREM_LLM_BENCH_HOSTS hosts with two simulated GPUs each, 2 by default), and measures both
commands in turn, five times each, with the same forks, pipelining and warm connections. Ends with one line of JSON;
exits 1 where the bar is missed or a host shows another number of GPUs.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAB = "bench-check"
HOSTS = int(os.environ.get("ONPREM_LLM_BENCH_HOSTS", "2"))
# An inventory of hosts that are there already, instead of a lab; each is to show two GPUs.
INVENTORY = os.environ.get("ONPREM_LLM_BENCH_INVENTORY")
GPUS = 2
ROUNDS = 5
BAR = 2.5  # times the ping, at most
FORKS = 16
# What the command line sets for its own runs, so that both sides have it.
TUNED = {
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s",
    "ANSIBLE_HOST_KEY_CHECKING": "True",
}


def run(*command: str, folder: Path) -> str:
    """Run a command and return its output; end with all of it where it fails."""
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


def timed(*command: str, folder: Path) -> tuple[float, str]:
    """Return the seconds of a command, and its output."""
    begun = time.perf_counter()
    text = run(*command, folder=folder)
    return time.perf_counter() - begun, text


def measure(folder: Path, inventory: str) -> tuple[list[float], list[float], int]:
    """Return the seconds of each ping and of each check, taken in turn after one of each to warm up, and the hosts."""
    ping = ("ansible", "all", "-i", inventory, "-m", "ansible.builtin.ping", "--forks", str(FORKS))
    check = ("onprem-llm", "check", inventory, "--no-trial", "--forks", str(FORKS), "--json")
    pings, checks, hosts = [], [], 0
    for number in range(ROUNDS + 1):
        ping_seconds, _ = timed(*ping, folder=folder)
        check_seconds, text = timed(*check, folder=folder)
        found = {host: len(one["facts"]["gpus"]) for host, one in json.loads(text)["hosts"].items()}
        hosts = len(found)
        if set(found.values()) != {GPUS}:
            sys.exit(f"found {found} GPUs, expected {GPUS} on each host")
        if number:
            pings.append(ping_seconds)
            checks.append(check_seconds)
    return pings, checks, hosts


def main() -> int:
    """Measure, say it to a person, then to a machine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if INVENTORY:
            pings, checks, hosts = measure(folder, INVENTORY)
        else:
            try:
                gpus = ("--gpus", f"{GPUS}xH100-80GB")
                run("onprem-llm", "lab", "up", "--name", LAB, "--hosts", str(HOSTS), "--ready", *gpus, folder=folder)
                pings, checks, hosts = measure(folder, "inventory.ini")
            finally:
                run("onprem-llm", "lab", "down", "--name", LAB, folder=folder)
    ping, check = statistics.median(pings), statistics.median(checks)
    print(f"{hosts} hosts, {FORKS} forks, pipelining, warm connections; median of {ROUNDS}, in turn")
    print(f"  ansible all -m ping          {ping:6.2f} s   {' '.join(f'{one:.2f}' for one in pings)}")
    print(f"  onprem-llm check --no-trial  {check:6.2f} s   {' '.join(f'{one:.2f}' for one in checks)}")
    print(f"  {check / ping:.2f} times the ping; at most {BAR:g} is the bar")
    result = {"name": "check", "hosts": hosts, "ratio": round(check / ping, 2), "bar": BAR}
    print(
        json.dumps({**result, "check_s": round(check, 3), "ping_s": round(ping, 3), "against": "ansible all -m ping"})
    )
    return int(check / ping > BAR)


if __name__ == "__main__":
    sys.exit(main())
