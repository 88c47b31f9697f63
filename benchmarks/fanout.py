"""Weights to 8 and 16 hosts along the chain, beside one host's own raw transfer over the same line.

Run as root: `make bench-fanout` (ARGS="--quick": 8 hosts, 3 rounds, no rsync). Every host is a network namespace whose
line has one rate, so that the line and not this machine is the bound. All is asked in turns, round by round. rsync and
mbuffer are compared where they are installed, in the first round alone. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fanout_ways as ways
from fanout_net import Net

RSYNCS = 8
LIMITS = {"ratio": 1.15, "sender": 1.1, "killed": 1.6}
PIECE = 256 * 1024


class Table:
    """Times of each way, and the lines that a person reads."""

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, dict[str, list[ways.Taken]]()

    def measure(self, name: str, way: Callable[[], ways.Taken]) -> ways.Taken:
        found = way()
        self.taken.setdefault(name, []).append(found)
        print(f"  {name}: {found.seconds:.2f} s, load {os.getloadavg()[0]:.1f}", flush=True)
        return found

    def seconds(self, name: str) -> float:
        return statistics.median(one.seconds for one in self.taken[name])

    def row(self, name: str) -> dict[str, float]:
        """Return medians; ratios are against the raw transfer of the same round."""
        found = self.taken[name]
        # What is measured once is measured in the first round.
        rounds = zip(found, self.taken["raw"], strict=False)
        row = {
            "seconds": self.seconds(name),
            "ratio": statistics.median(one.seconds / raw.seconds for one, raw in rounds),
        }
        if found[0].sent:
            row["sender"] = statistics.median(one.sent / self.size for one in found)
        # The sender's work is no hop's.
        hops = [cpu for one in found for cpu in one.cpu[-1 if name == "raw" else 0 :]]
        row["cpu_s_hop_gib"] = statistics.mean(hops) / (self.size / 2**30)
        return {key: round(value, 3) for key, value in row.items()}

    def show(self) -> dict[str, dict[str, float]]:
        print(f"\n{'':30}{'seconds':>9}{'ratio':>8}{'sender sent':>13}{'CPU s a hop and GiB':>21}{'rounds':>8}")
        rows = {name: self.row(name) for name in self.taken}
        for name, row in rows.items():
            sent = f"{row['sender']:.3f}" if "sender" in row else "-"
            rounds = len(self.taken[name])
            print(f"{name:30}{row['seconds']:9.2f}{row['ratio']:8.3f}{sent:>13}{row['cpu_s_hop_gib']:21.2f}{rounds:8}")
        return rows


def one_round(net: Net, data: ways.Data, table: Table, counts: list[int], *, others: bool) -> None:
    with ways.emptied(net):
        raw = table.measure("raw", lambda: ways.raw(net, data))
    for count in counts:
        hosts = list(range(1, count + 1))
        with ways.emptied(net):
            table.measure(f"chain {count}", lambda hosts=hosts: ways.chain(net, data, hosts, piece=PIECE))
        if others and shutil.which("mbuffer"):
            with ways.emptied(net):
                table.measure(f"mbuffer {count}", lambda hosts=hosts: ways.mbuffer(net, data, hosts))
        kill = (count // 2, raw.seconds / 2)
        with ways.emptied(net):
            table.measure(
                f"chain {count}, one killed",
                lambda hosts=hosts, kill=kill: ways.chain(net, data, hosts, piece=PIECE, kill=kill),
            )


def rsyncs(net: Net, data: ways.Data, table: Table) -> None:
    if not shutil.which("rsync"):
        print("rsync is not installed: not compared")
        return
    hosts = list(range(1, net.count))[:RSYNCS]
    for name, at_once in ((f"{len(hosts)} rsyncs at once", True), (f"rsync {len(hosts)}, one after another", False)):
        with ways.emptied(net):
            table.measure(name, lambda at_once=at_once: ways.rsync(net, data, hosts, at_once=at_once))


def within(rows: dict[str, dict[str, float]], counts: list[int]) -> bool:
    chains = [rows[f"chain {count}"] for count in counts]
    killed = [rows[f"chain {count}, one killed"] for count in counts]
    return (
        all(row["ratio"] <= LIMITS["ratio"] and row["sender"] <= LIMITS["sender"] for row in chains)
        and all(row["ratio"] <= LIMITS["killed"] for row in killed)
    )  # fmt: skip


def asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--hosts", type=int, nargs="+")
    parser.add_argument("--mib", type=int, default=160)
    parser.add_argument("--mbit", type=int, default=100)
    found = parser.parse_args(arguments)
    found.rounds = found.rounds or (3 if found.quick else 5)
    found.hosts = found.hosts or ([8] if found.quick else [8, 16])
    return found


def main(arguments: list[str]) -> int:
    wanted = asked(arguments)
    if os.geteuid():
        sys.exit("bench-fanout makes network namespaces: run it as root")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="onprem-llm-fanout-", dir=memory))
    try:
        data = ways.make_data(folder / "host0" / "data", wanted.mib * 2**20)
        table = Table(data.size)
        print(f"{wanted.mib} MiB to each host over lines of {wanted.mbit} Mbit/s; {os.cpu_count()} cores")
        with Net(max(wanted.hosts) + 1, wanted.mbit, folder) as net:
            for number in range(wanted.rounds):
                print(f"round {number + 1} of {wanted.rounds}", flush=True)
                one_round(net, data, table, wanted.hosts, others=not number)
                if not number and not wanted.quick:
                    rsyncs(net, data, table)
    finally:
        shutil.rmtree(folder)
    rows = table.show()
    ok = within(rows, wanted.hosts)
    summary: dict[str, Any] = {
        "name": "fanout", "compared": "medians; ratio is against one host's own raw transfer in the same round",
        "mib": wanted.mib, "mbit": wanted.mbit, "rounds": wanted.rounds, **rows, "limits": LIMITS, "within": ok,
        "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(summary))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
