"""`onprem-llm check` without its trial against `ansible all -m ping` on the same hosts: what does a look cost?

Makes a lab of its own (ONPREM_LLM_BENCH_HOSTS hosts with two simulated GPUs each, 2 by default), and measures both
commands in turn, five times each, with the same forks, pipelining and warm connections. Ends with one line of JSON;
exits 1 where the bar is missed or a host shows another number of GPUs.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from beside_a_ping import FORKS, ROUNDS, in_turn, run

LAB = "bench-check"
HOSTS = int(os.environ.get("ONPREM_LLM_BENCH_HOSTS", "2"))
# An inventory of hosts that are there already, instead of a lab; each is to show two GPUs.
INVENTORY = os.environ.get("ONPREM_LLM_BENCH_INVENTORY")
GPUS = 2
BAR = 2.5  # times the ping, at most


def measure(folder: Path, inventory: str) -> tuple[list[float], list[float], int]:
    """Return the seconds of each ping and of each check, and how many hosts there are."""
    counts = []

    def look(text: str) -> None:
        found = {host: len(one["facts"]["gpus"]) for host, one in json.loads(text)["hosts"].items()}
        counts.append(len(found))
        if set(found.values()) != {GPUS}:
            sys.exit(f"found {found} GPUs, expected {GPUS} on each host")

    pings, checks = in_turn(("onprem-llm", "check", inventory, "--no-trial", "--json"), inventory, folder, look)
    return pings, checks, counts[-1]


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
