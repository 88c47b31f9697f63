"""A closed host: a network with no way out, a dead end for a default route, and a recorder of what tries (recorder/).

All of it is there before the host boots for the first time, and comes back with every boot.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from onprem_llm.errors import OnpremError
from onprem_llm.lab import engine
from onprem_llm.lab.gpu.stand_in import File
from onprem_llm.lab.state import Host, Lab

PROGRAM = "/usr/lib/onprem-llm-recorder"
FOLDER = "/var/lib/onprem-llm-recorder"
UNIT = "onprem-llm-recorder.service"

UNIT_TEXT = """\
# Written by `onprem-llm lab up --closed`.
[Unit]
Description=Record what tries to reach the outside of this closed lab
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target

[Service]
WorkingDirectory={program}
ExecStart=/usr/bin/python3 -m recorder {folder} {subnet}
Restart=on-failure
"""

# Of documentation's addresses (RFC 5737): nobody is asked there but by us, to see that what asks is recorded.
PROBE_ADDRESS = "192.0.2.1"
PROBE = """
import socket, sys, time
asks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asks.sendto(b"is this recorded", (sys.argv[1], int(sys.argv[2])))
time.sleep(float(sys.argv[3]))
"""
PROBE_S = 10.0


@dataclass(frozen=True)
class Recorded:
    """What a host's recorder says: its attempts, and whether it can be believed (`problem` says why not)."""

    attempts: tuple[Mapping[str, Any], ...]
    problem: str | None


def furnish(lab: Lab, host: Host) -> None:
    """Put the recorder into a host that has not been started yet."""
    room = resources.files(__package__).joinpath("recorder")
    program = [
        File(f"{PROGRAM}/recorder/{one.name}", one.read_text("utf-8"))
        for one in room.iterdir()
        if one.name.endswith(".py")
    ]
    wants = File("/etc/systemd/system/sysinit.target.d/onprem-llm-recorder.conf", f"[Unit]\nWants={UNIT}\n")
    text = UNIT_TEXT.format(program=PROGRAM, folder=FOLDER, subnet=lab.subnet)
    engine.put(host.name, [*program, File(f"/etc/systemd/system/{UNIT}", text), wants])


def recorded(host: Host) -> Recorded:
    """Return what the host's recorder has written up to now."""
    done = engine.exec_root(host.name, ["cat", f"{FOLDER}/attempts.jsonl"])
    if done.returncode != 0:
        return Recorded((), f"its recorder has left nothing: {done.stderr.strip() or 'the host is off'}")
    try:
        # The last line may be half written.
        attempts = tuple(json.loads(line) for line in done.stdout.rpartition("\n")[0].splitlines())
    except ValueError:
        return Recorded((), f"{FOLDER}/attempts.jsonl cannot be read")
    return Recorded(attempts, _problem(host))


def _problem(host: Host) -> str | None:
    done = engine.exec_root(host.name, ["cat", f"{FOLDER}/state.json"])
    try:
        state = json.loads(done.stdout)
        lost, starts = int(state["lost"]), int(state["starts"])
    except (ValueError, KeyError, TypeError):
        return "its recorder does not say how it is"
    if lost:
        return f"its recorder was too slow for {lost} packets: who sent them is not known"
    if starts != 1:
        return f"its recorder was started {starts} times, and what came between is not known"
    active = engine.exec_root(host.name, ["systemctl", "is-active", UNIT]).stdout.strip()
    return None if active == "active" else f"its recorder does not run ({active or 'the host is off'})"


def probe(host: Host) -> int:
    """Try to reach the outside from a host; return the port. OnpremError unless the recorder says who it was."""
    port = 20000 + secrets.randbelow(40000)
    engine.exec_root(host.name, ["sh", "-c", 'exec python3 -c "$@" >/dev/null 2>&1 &', "probe", *_words(port)])
    deadline = time.monotonic() + PROBE_S
    while time.monotonic() < deadline:
        found = [one for one in recorded(host).attempts if is_probe(one) and one["port"] == port]
        if found and PROBE_ADDRESS in str(found[0]["command"]):
            return port
        time.sleep(0.3)
    raise OnpremError(
        f"host {host.name}: its recorder did not see what we sent to {PROBE_ADDRESS}, so nothing that it says is proof",
        details=engine.exec_root(host.name, ["journalctl", "--no-pager", "-n", "15", "-u", UNIT]).stdout.strip(),
        hint=f"docker exec {host.name} systemctl status {UNIT}; then make the lab anew",
    )


def _words(port: int) -> list[str]:
    return [PROBE, PROBE_ADDRESS, str(port), str(PROBE_S)]


def is_probe(attempt: Mapping[str, Any]) -> bool:
    """Tell what `probe` sent from what others did."""
    ours = (attempt["destination"], attempt["protocol"]) == (PROBE_ADDRESS, "udp")
    return ours and "is this recorded" in str(attempt["command"])
