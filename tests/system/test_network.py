"""`check --network` on two hosts: a slow line, lost packets and a shut port are found; after Ctrl-C nothing is left."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.load.rehearsal import Rehearsal, until

PORT = 7610
LEFT = "systemctl list-units --no-legend 'onprem-llm-network*'; ls -d /run/onprem-llm-network*; pgrep -a iperf3"
OVER = """\
api_version: 1
name: over
model: model
engine: {image: "onprem-llm/stub-engine:1", engine_args: {max_model_len: 512, tensor_parallel_size: 2}}
resources: {gpus: 0, nodes: 2}
port: 8300
"""
CHECK = ("check", "--network", "--no-trial", "--seconds", "2")


@contextlib.contextmanager
def planted(rehearsal: Rehearsal, host: str, plant: str, take_away: str) -> Iterator[None]:
    rehearsal.lab.exec_root(host, "sh", "-ec", plant)
    try:
        yield
    finally:
        rehearsal.lab.exec_root(host, "sh", "-c", take_away)


def found(rehearsal: Rehearsal, code: int) -> dict[str, Any]:
    """Return what was found by check, of those that are not well."""
    document = rehearsal.site.json(*CHECK, "--limit", ",".join(rehearsal.hosts[:2]), code=code)
    findings = [one for host in document["hosts"].values() for one in host["findings"] if one["level"] != "ok"]
    return {"document": document, **{one["check"]: one for one in findings}}


def left(rehearsal: Rehearsal) -> str:
    shown = [rehearsal.lab.exec_root(host, "sh", "-c", f"({LEFT}) 2>/dev/null; true") for host in rehearsal.hosts]
    rules = [rehearsal.lab.exec_root(host, "iptables", "-S", "INPUT") for host in rehearsal.hosts]
    return "".join([*shown, *(line for rule in rules for line in rule.splitlines() if "757" in line)])


def test_faults_of_a_line_are_found_and_named(rehearsal: Rehearsal) -> None:
    one, other = rehearsal.hosts[:2]
    shut = f"INPUT -p tcp --dport {PORT} -j DROP"
    slow = "tc qdisc replace dev eth0 root tbf rate 50mbit burst 192kb limit 1mb"
    with (
        planted(rehearsal, other, f"iptables -I {shut}", f"iptables -D {shut}"),
        planted(rehearsal, other, slow, "tc qdisc del dev eth0 root"),
        planted(rehearsal, one, "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500"),
    ):
        bad = found(rehearsal, 5)
    assert bad["ports"]["found"] == f"from {one} to {other}: TCP {PORT} of the engine's ports (no answer)"
    assert f"from {other} to {one}" in bad["uneven_line"]["found"]
    assert f"from {other} to {one} are lost" in bad["mtu"]["found"]
    links = {link["from"]: link for pair in bad["document"]["network"]["pairs"] for link in pair["links"]}
    assert 40e6 < links[other]["rate"] < 55e6
    assert links[other]["mtu"] in range(1400, 1405)
    assert left(rehearsal) == ""
    # And a plan for a replica over these two says so, though nobody hands it the report.
    rehearsal.site.write("over.yaml", OVER)
    warned = [text for text in rehearsal.site.json("plan", "over.yaml")["warnings"] if "lines with faults" in text]
    assert len(warned) == 1
    assert f"{one} to {other}: TCP ports are shut: {PORT}" in warned[0]
    assert f"{other} to {one}: " in warned[0]


def test_a_closed_firewall_is_opened_for_as_long_as_it_lasts(rehearsal: Rehearsal) -> None:
    """The run's two ports are opened; the engine's own are not, and that nobody reaches them is what is found."""
    one, other = rehearsal.hosts[:2]
    close = "iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT; "
    close += "iptables -A INPUT -p tcp --dport 22 -j ACCEPT; iptables -P INPUT DROP"
    with planted(rehearsal, other, close, "iptables -P INPUT ACCEPT; iptables -F INPUT"):
        bad = found(rehearsal, 5)
    assert bad["ports"]["found"].startswith(f"from {one} to {other}: TCP 7600-7663 of the engine's ports (no answer)")
    (pair,) = bad["document"]["network"]["pairs"]
    assert pair["error"] is None
    assert all(link["rate"] > 0 and link["mtu"] == 1500 for link in pair["links"])
    assert left(rehearsal) == ""


def test_after_ctrl_c_nothing_is_left(rehearsal: Rehearsal) -> None:
    command = ["onprem-llm", *CHECK[:3], "--seconds", "30", "--limit", ",".join(rehearsal.hosts[:2])]
    child = subprocess.Popen(command, cwd=rehearsal.site.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until(lambda: "iperf3 --server" in left(rehearsal), 90, "a measurement of bandwidth")
        os.kill(child.pid, signal.SIGINT)
        child.wait(60)
    finally:
        child.kill()
    assert child.returncode == 130
    assert left(rehearsal) == ""
