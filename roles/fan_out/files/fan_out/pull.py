# SPDX-License-Identifier: Apache-2.0
"""Pull what is missing from the host before us, or from the next one before it that lives."""

import collections
import queue
import socket
import threading
import time

from .content import DIGEST, HAVE, UNKNOWN
from .order import Refused
from .wire import BEAT, BUSY, LOWER, PIECE, TABLE, WELCOME, Channel, Gone, greet

WINDOW = 16 * 1024 * 1024  # bytes that are asked for and not here yet
TABLES_AHEAD = 3
CHECKERS = 2  # threads that hash and write while the next piece comes
DAMAGED = 3  # times that a piece may come damaged from one host before another is asked
PAUSE = 0.2  # seconds between two rounds of asking who serves
CONNECT = 1  # seconds; who is far away enough to need more is in no cluster


class Puller:
    """Chooses who serves us, and asks for all that is missing, in order."""

    def __init__(self, order, secret, content, server, say):
        """`server` knows whether somebody pulls from us; `say(text)` is the log."""
        self.order, self.secret, self.content, self.server, self.say = order, secret, content, server, say
        self.upstream = None  # the name of who serves us
        self.lost = 0  # lines that ended before all was here
        self._received = 0  # over lines that have ended
        self._channel, self._counting = None, threading.Lock()
        self._suspects = []  # who were lost or bad since it last went well
        self._liars = set()  # who gave a table that is not the manifest's: what came by it came in vain
        self._last = "none"

    def start(self):
        """Begin."""
        threading.Thread(target=self.content.guarded, args=(self._run,), daemon=True).start()

    def received_so_far(self):
        """Return all bytes that came."""
        with self._counting:
            return self._received + (self._channel.received if self._channel else 0)

    def _run(self):
        began = heard = time.monotonic()
        crowded = None  # since when all who live serve others
        while not self.content.complete:
            candidates = self._candidates(time.monotonic() - began)
            channel, answers = self._find(candidates)
            if channel:
                self._pull(channel)
                heard, crowded = time.monotonic(), None
                continue
            now = time.monotonic()
            heard = now if answers else heard
            crowded = (crowded or now) if BUSY in answers or (LOWER in answers and self._is_tail) else None
            if crowded and now - crowded > self.order.dead + 1:
                crowded = None
                self._go_to_the_tail()
            if now - heard > self.order.give_up:
                return self.content.on_error(self._nobody())
            time.sleep(PAUSE)
        return None

    @property
    def _is_tail(self):
        return self.server.rank >= len(self.order.hosts)

    def _candidates(self, waited):
        """Return ranks in the order's list, nearest first; before all have begun, the one before us alone."""
        ours, count = self.order.rank, len(self.order.hosts)
        if self._is_tail:
            found = [rank for rank in range(count - 1, -1, -1) if rank != ours]
        else:
            found = list(range(ours - 1, -1, -1))
        found = [rank for rank in found if rank not in self._liars] or found
        if waited < self.order.patience and not self._suspects and not self._is_tail:
            return found[:1]
        return [rank for rank in found if rank not in self._suspects] + [r for r in self._suspects if r in found]

    def _find(self, candidates):
        """Return a channel that welcomed us or None, and the answers of all that were asked."""
        answers = []
        for rank in candidates:
            name, address = self.order.hosts[rank]
            channel = None
            try:
                sock = socket.create_connection((address, self.order.port), CONNECT, (self.order.address, 0))
                channel = Channel(sock, self.order.dead)
                answer = greet(channel, self.secret, self.order, self.server.rank)
                answers.append(answer)
                if answer == WELCOME:
                    self.say(f"pulling from {name}")
                    self.upstream, self._rank = name, rank
                    return channel, answers
            except (OSError, Gone) as error:
                self._last = f"{name}: {error}"
            if channel:
                channel.close()
        return None, answers

    def _go_to_the_tail(self):
        """All serve others: we came late, or came back. Behind the last one nobody is slowed by us."""
        rank = self.server.rank + len(self.order.hosts)
        if self.server.become(rank):
            self.say("every host serves another one: going behind the last")

    def _nobody(self):
        return Refused(
            f"no host of this run has answered for {self.order.give_up:g} s (last tried: {self._last}); see whether "
            f"the hosts reach each other on port {self.order.port}, and run it again: it goes on from here"
        )

    def _pull(self, channel):
        self._channel, lies = channel, self.content.lies
        try:
            Fetch(self.order, self.content, channel).run()
            self._suspects = []
        except Gone as error:
            self.say(f"{self.upstream}: {error}")
            self.lost += 1
            if self.content.lies != lies:
                self._liars.add(self._rank)
            self._suspects = [rank for rank in self._suspects if rank != self._rank] + [self._rank]
        finally:
            with self._counting:
                self._received += channel.received
                self._channel = self.upstream = None
            channel.close()


class Fetch:
    """One connection's questions and answers."""

    def __init__(self, order, content, channel):
        """`channel` has been welcomed."""
        self.order, self.content, self.channel = order, content, channel
        self._pieces = collections.deque()  # to be asked for
        self._tables = collections.deque()  # spans whose table was asked for or is here, in order
        self._asked = collections.deque()  # (kind, span, piece) of what will be answered, in order
        self._open = 0  # bytes that were asked for
        self._next = 0  # the first span that was not looked at
        self._damaged, self._lies = {}, content.lies
        self._came, self._failed = queue.Queue(maxsize=8), queue.Queue()

    def run(self):
        """Fetch until all is here; raises Gone."""
        self.channel.beat()
        checkers = [threading.Thread(target=self._check, daemon=True) for _ in range(CHECKERS)]
        for checker in checkers:
            checker.start()
        try:
            while not self.content.complete:
                self._ask()
                self._hear()
        finally:
            for _ in checkers:
                self._came.put(None)
            for checker in checkers:
                checker.join()

    def _ask(self):
        self._again()
        states = self.content.state
        while self._next < len(states) and len(self._tables) < TABLES_AHEAD and states[self._next] != UNKNOWN:
            if states[self._next] != HAVE:
                self._tables.append(self._next)
                if self.content.wanted(self._next) is None:
                    self._question(TABLE, self._next)
            self._next += 1
        while self._open < WINDOW:
            if not self._pieces and not self._next_span():
                break
            if self._pieces:
                number, piece = self._pieces.popleft()
                self._open += self.order.piece_size(self.order.spans[number], piece)
                self._question(PIECE, number, piece)

    def _question(self, kind, number, piece=0):
        self._asked.append((kind, number, piece))
        self.channel.send(kind, number, piece)

    def _next_span(self):
        """Take the pieces of the next span whose table is here; tell whether there was one."""
        wanted = self.content.wanted(self._tables[0]) if self._tables else None
        if wanted is None:
            return False
        number = self._tables.popleft()
        self._pieces.extend((number, piece) for piece in wanted)
        return True

    def _hear(self):
        kind, number, piece, body = self.channel.read(self._due)
        if kind != BEAT:
            self._asked.popleft()
        if kind == TABLE:
            if not self.content.put_table(number, body):
                raise Gone("sent a table that no host of this run has made")
        elif kind == PIECE:
            self._came.put((number, piece, body))
        if self.content.lies != self._lies:
            raise Gone("sent a table that is not the manifest's")

    def _due(self, *head):
        if not self._asked or head != self._asked[0]:
            return None
        kind, number, piece = head
        span = self.order.spans[number]
        return DIGEST * (self.order.pieces(span) + 1) if kind == TABLE else self.order.piece_size(span, piece)

    def _check(self):
        """Hash and write beside the thread that reads."""
        while True:
            came = self._came.get()
            if came is None:
                return
            number, piece, body = came
            try:
                right = self.content.put_piece(number, piece, body)
            except OSError as error:
                self.content.on_error(error)
                right = True
            self._failed.put((number, piece, right, len(body)))

    def _again(self):
        """Ask again for what came damaged."""
        while not self._failed.empty():
            number, piece, right, size = self._failed.get()
            self._open -= size
            if right:
                continue
            times = self._damaged[number, piece] = self._damaged.get((number, piece), 0) + 1
            if times >= DAMAGED:
                raise Gone(f"piece {piece} of span {number} came damaged {times} times")
            self._pieces.appendleft((number, piece))
