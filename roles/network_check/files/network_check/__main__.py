# SPDX-License-Identifier: Apache-2.0
"""Take part in a run: `python3 -m network_check FOLDER`, where FOLDER holds order.json and secret.

status.json there says how far it is: "state" (running, done, failed), "done" and "total" (rounds), "pairs" (what was
measured), "host" (iperf3, clock) and "error". It goes on answering others until SIGTERM: whoever started it ends it,
or its unit's time limit does.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from .agent import Agent
from .device import clock, iperf3
from .order import Order, Refused


class Status:
    """status.json of the run's folder."""

    def __init__(self, folder):
        """Nothing is said yet."""
        self.folder = folder

    def tell(self, state, **more):
        """Write it in one piece."""
        new = self.folder / "status.new"
        new.write_text(json.dumps({"state": state, **more}), encoding="utf-8")
        new.replace(self.folder / "status.json")


def failed(status, error):
    """Tell an error by which it ended; return the exit status."""
    print(error, file=sys.stderr, flush=True)
    status.tell("failed", error=str(error))
    return 1


def main(arguments):
    """Run; return the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder, ended = Path(arguments[0]), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # what it has started ends with its unit
    status = Status(folder)
    try:
        raw = json.loads((folder / "order.json").read_text(encoding="utf-8"))
        order = Order(raw, (folder / "secret").read_bytes().strip())
    except (OSError, ValueError, Refused) as error:
        return failed(status, error)
    host = {"iperf3": iperf3() is not None, "clock": clock()}

    def tell(done, state="running"):
        status.tell(state, done=done, total=len(order.rounds), pairs=agent.pairs, host=host)

    agent = Agent(order, tell)
    try:
        agent.start()
        tell(0)
        agent.run()
    except OSError as error:
        return failed(status, f"{order.address} port {order.port}: {error.strerror or error}")
    tell(len(order.rounds), "done")
    ended.wait()
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
