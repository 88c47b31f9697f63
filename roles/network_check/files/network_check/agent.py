# SPDX-License-Identifier: Apache-2.0
"""One host's part in a run: the pairs that it is of, one after another; each pair meets by itself.

Every host goes through the same rounds in the same order, so that nobody waits in a circle: two who meet in a round
have both done with the rounds before, or given them up.
"""

import queue
import socket
import threading
import time

from .mtu import Echo
from .pair import Answering, Asking
from .wire import GO, MEET, OVER, WAIT, WHERE, Line, Lost, dial, greeted, words

LOOK = 0.2  # seconds between two looks whether the other is there
ASK = 1.0  # seconds between two questions where it is


class Agent:
    """Serves those who come, and goes through the rounds. `pairs` has what was found: results, or why there is none."""

    def __init__(self, order, tell):
        """`tell(done)` is called with the number of rounds that are over."""
        self.order, self.tell, self.pairs = order, tell, []
        self.round, self.came, self.began = -1, queue.Queue(), time.monotonic()
        self.lock = threading.Lock()

    def start(self):
        """Listen; raises OSError."""
        six = ":" in self.order.address
        self.door = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        self.door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.door.bind((self.order.address, self.order.port))
        self.door.listen(64)
        Echo(self.order).start()
        threading.Thread(target=self._serve, daemon=True).start()

    def run(self):
        """Go through the rounds."""
        for number, partner in enumerate(self.order.rounds):
            self._enter(number)
            if partner is not None:
                self.pairs.append({"round": number, **self._meet(number, partner)})
            self.tell(number + 1)
        self._enter(len(self.order.rounds))

    def _enter(self, number):
        with self.lock:
            self.round = number
            while not self.came.empty():
                self.came.get()[1].close()

    def _meet(self, number, partner):
        """Measure with one host, or say why that could not be."""
        leads = self.order.rank < partner
        try:
            line = self._called(number, partner) if leads else self._awaited(number, partner)
        except Lost as error:
            return {"a": self.order.rank, "b": partner, "unmet": str(error)}
        try:
            if leads:
                return Asking(self.order, partner, line).run()
            return {"a": partner, "b": self.order.rank, "answered": True, "error": Answering(
                self.order, partner, line).run()}  # fmt: skip
        finally:
            line.close()

    def _called(self, number, partner):
        """Return the line to a host that waits for us in this round; raises Lost."""
        silent = Silence(self)
        while True:
            try:
                line, answer, _ = dial(self.order, partner, number, MEET)
                if answer == GO:
                    return line
                line.close()
                if answer == OVER:
                    raise Gone("it had given this pair up")
                silent.over()
            except Gone as error:
                raise Lost(str(error)) from None
            except (OSError, Lost) as error:
                silent.goes_on(error)
            time.sleep(LOOK)

    def _awaited(self, number, partner):
        """Return the line of a host that comes to us in this round; raises Lost."""
        silent, asked = Silence(self), time.monotonic()
        while True:
            try:
                rank, line = self.came.get(timeout=LOOK)
                if rank == partner:
                    return line
                line.close()
            except queue.Empty:
                pass
            if time.monotonic() - asked < ASK:
                continue
            asked = time.monotonic()
            try:
                line, _, at = dial(self.order, partner, number, WHERE)
                line.close()
                silent.over()
            except (OSError, Lost) as error:
                silent.goes_on(error)
                continue
            if at > number and self.came.empty():
                raise Lost("it did not get here, and went on")

    def _serve(self):
        while True:
            try:
                sock, _ = self.door.accept()
            except OSError:
                time.sleep(LOOK)
                continue
            threading.Thread(target=self._greet, args=(Line(sock),), daemon=True).start()

    def _greet(self, line):
        try:
            rank, number, purpose, answer = greeted(line, self.order)
            with self.lock:
                here = self.round
                if purpose == WHERE:
                    answer(WHERE, here)
                elif purpose == MEET and number == here and self.order.rounds[here] == rank and self.came.empty():
                    answer(GO, here)
                    self.came.put((rank, line))
                    return
                else:
                    answer(WAIT if number >= here else OVER, here)
        except (Lost, OSError):
            pass  # nobody of this run, or gone already; who is of it says so itself
        line.close()


class Gone(Exception):  # noqa: N818  it is told to people
    """The other host is there, and has no time for this pair any more."""


class Silence:
    """How long a host has not answered; raises Lost where that is too long."""

    def __init__(self, agent):
        """It begins to count with the first failure."""
        self.agent, self.since = agent, None

    def over(self):
        """It answered."""
        self.since = None

    def goes_on(self, error):
        """It did not; raises Lost when it had its time, which is longer while hosts may not have begun yet."""
        now = time.monotonic()
        self.since = self.since or now
        order = self.agent.order
        if now - self.since > order.patience and now - self.agent.began > order.begin:
            raise Lost(words(error) if isinstance(error, OSError) else str(error))
