# SPDX-License-Identifier: Apache-2.0
"""Measure the lines before a run: every host pulls from the one before it for half a second, in a ring, all at once."""

import socket
import threading
import time

from .serve import Server
from .wire import PROBE, WELCOME, Channel, Gone, greet

SECONDS = 0.5
SLOW_START = 0.1  # seconds in which a connection finds its speed
OPEN = 8  # questions
WAIT = 20  # seconds that a neighbour may take to begin
SERVE = 60  # seconds after which a measurement that nobody stops is over


class Measure:
    """One host's part; status.json says {"state": "running|measured|failed", "rate": bytes a second, "error"}."""

    def __init__(self, order, secret, status, say):
        """`order` is the run's, in the order in which the hosts stand before they are measured."""
        self.order, self.secret, self.status = order, secret, status
        self.server = Server(order, secret, None, say)
        self.measured = False  # and told

    def run(self, ended):
        """Measure, and serve until `ended` is set; return the exit status. Raises OSError."""
        self.server.start()
        self.status.tell("running")
        threading.Thread(target=self._pull, daemon=True).start()
        ended.wait(SERVE)
        return 0 if self.measured else 1

    def _pull(self):
        name, address = self.order.hosts[self.order.rank - 1]  # the last one is before the first
        last, until = "", time.monotonic() + WAIT
        while time.monotonic() < until:
            try:
                sock = socket.create_connection((address, self.order.port), 1, (self.order.address, 0))
                channel = Channel(sock, self.order.dead)
                if greet(channel, self.secret, self.order, self.order.rank) == WELCOME:
                    self.measured = self.status.tell("measured", rate=self._rate(channel))
                    return
            except (OSError, Gone) as error:
                last = str(error)
            time.sleep(0.1)
        error = f"{self.order.name}: {name} at {address} port {self.order.port}: {last}"
        self.status.tell("failed", error=error)
        self.status.say(error)

    def _rate(self, channel):
        for _ in range(OPEN):
            channel.send(PROBE)
        first = time.monotonic()
        began, before = None, 0
        while began is None or time.monotonic() - began < SECONDS:
            channel.read(lambda kind, *_: self.order.piece if kind == PROBE else None)
            channel.send(PROBE)
            if began is None and time.monotonic() - first > SLOW_START:
                began, before = time.monotonic(), channel.received
        rate = (channel.received - before) / (time.monotonic() - began)
        channel.close()
        return rate
