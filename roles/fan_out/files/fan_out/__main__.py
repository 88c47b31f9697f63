# SPDX-License-Identifier: Apache-2.0
"""Take part in a run: `python3 -m fan_out FOLDER [--measure]`, where FOLDER holds order.json and secret.

status.json there says how far it is: "state" (serving: it had all; running, done, failed, stopped), "done" and "total"
(bytes), "sent" and "received" (bytes on the wire), "again" (pieces that came damaged), "lies" (tables that were not the
manifest's: what came by them came in vain), "lost" (lines that ended too early), "from" (who serves us), and "error".
It goes on serving until SIGTERM, or until nobody has pulled for `linger` seconds. Exit status: 0 all is here (or
measured) and status.json says so, 1 it is not; the last line on standard error says why.
"""

import errno
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from .content import Content
from .measure import Measure
from .order import Order, Refused
from .pull import Puller
from .serve import Server
from .status import Status

TOLD_EVERY = 0.5  # seconds


class Run:
    """This host's part: content, server, puller, and what status.json says of them."""

    def __init__(self, folder):
        """`folder` holds order.json and secret; raises Refused."""
        self.ended, self.error, self.began = threading.Event(), None, time.monotonic()
        try:
            self.order = Order(json.loads((folder / "order.json").read_text(encoding="utf-8")))
            self.secret = secret = (folder / "secret").read_bytes().strip()
        except (OSError, ValueError) as error:
            raise Refused(f"{folder}: {error}") from None
        if len(secret) < 32:
            raise Refused("{}: shorter than 32 bytes; the run makes it".format(folder / "secret"))
        self.status = Status(folder, self.order.name, say)
        self.content = Content(self.order, secret, self.fail)
        self.server = Server(self.order, secret, self.content, say)
        self.puller = Puller(self.order, secret, self.content, self.server, say)
        self.seconds = None

    def fail(self, error):
        """End with an error of any thread."""
        self.error = self.error or explain(error, self.order)
        self.ended.set()

    def run(self):
        """Run to the end; return the exit status."""
        try:
            self.content.start()
            self.server.start()
        except (OSError, Refused) as error:
            self.fail(error)
        if not self.error and self.order.rank:
            self.puller.start()
        while not self.ended.wait(TOLD_EVERY if self.seconds else TOLD_EVERY / 2) and not self._idle():
            self.tell(self._state("running"))
        state = "failed" if self.error else self._state("stopped")
        self.status.said = None  # what hinders it now is said again: the last word counts
        told = self.tell(state)
        if self.error:
            say(self.error)
        return 0 if told and state in ("done", "serving") else 1

    def measure(self):
        """Measure the line from the host before us; return the exit status."""
        try:
            return Measure(self.order, self.secret, self.status, say).run(self.ended)
        except OSError as error:
            return failed(self.status, explain(error, self.order))

    def _state(self, otherwise):
        return "serving" if not self.order.rank else "done" if self.content.complete else otherwise

    def _idle(self):
        """Tell whether we have all, and nobody has pulled for long."""
        if self.content.complete:
            self.seconds = self.content.ended - self.began
        if self.server.child or not (self.content.complete or self.content.source):
            return False
        last = max(self.server.used, self.began + (self.seconds or 0))
        return time.monotonic() - last > (self.order.give_up if self.content.source else self.order.linger)

    def tell(self, state):
        """Say how far it is; return whether that could be said."""
        status = {
            "done": self.content.bytes, "total": self.order.total, "error": self.error,
            "sent": self.server.sent_so_far(), "received": self.puller.received_so_far(), "again": self.content.again,
            "lies": self.content.lies, "lost": self.puller.lost, "from": self.puller.upstream,
            "seconds": self.seconds, "ended": self.content.ended,
        }  # fmt: skip
        return self.status.tell(state, **status)


def explain(error, order):
    """Say for a person what ended it."""
    if isinstance(error, Refused):
        return f"{order.name}: {error}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        remedy = "make room there, and run it again: it goes on from here"
        return f"{order.name}: the disk of {order.folder} is full; {remedy}"
    if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
        where = f"{order.address} port {order.port}"
        return f"{order.name}: cannot listen on {where}: {error.strerror}; is another run at work there?"
    return f"{order.name}: {error}"


def say(text):
    """Log a line."""
    print(text, file=sys.stderr, flush=True)


def failed(status, error):
    """Tell an error by which it ended before it began; return the exit status."""
    status.tell("failed", error=error)
    say(error)
    return 1


def main(arguments):
    """Run; return the exit status."""
    measures = arguments[1:] == ["--measure"]
    if len(arguments) != 1 + measures:
        say(__doc__)
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        run = Run(Path(arguments[0]))
    except Refused as error:
        return failed(Status(Path(arguments[0]), None, say), str(error))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: run.ended.set())
    return run.measure() if measures else run.run()


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Threads may be in the middle of a write or a read; nothing that is not checked has a name yet.
    os._exit(status)
