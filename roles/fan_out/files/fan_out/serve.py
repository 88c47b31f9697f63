# SPDX-License-Identifier: Apache-2.0
"""Serve what was checked to one host behind us; another one is sent on, since two would have half of the line each."""

import collections
import socket
import threading
import time

from .wire import BEAT, BEAT_EVERY, BUSY, LOWER, PIECE, PROBE, TABLE, WELCOME, Channel, Gone, hear_greeting

QUESTIONS = 4096  # that one may have open
# Of the silence that makes one dead: after so much it gives way to another that asks, who has lost the host between us.
CONTESTED = 0.6
STRANGERS = 16  # connections that have not proved anything yet


class Pace:
    """Bytes a second for all that this host sends."""

    def __init__(self, rate):
        """`rate` in bytes a second; None for no limit."""
        self.rate, self._free, self._lock = rate, time.monotonic(), threading.Lock()

    def take(self, count):
        """Wait until `count` bytes may be sent."""
        if self.rate:
            with self._lock:
                now = time.monotonic()
                start = max(now, self._free)
                self._free = start + count / self.rate
            time.sleep(max(0, start - now))


class Server:
    """Listens on the cluster address, to the run's hosts only."""

    def __init__(self, order, secret, content, say):
        """`content` None serves probes alone; `say(text)` is the log."""
        self.order, self.secret, self.content, self.say = order, secret, content, say
        self.rank = order.rank
        self.child = None  # (rank, channel)
        self.sent, self.used = 0, time.monotonic()
        self._pace, self._lock = Pace(order.bandwidth), threading.Lock()
        self._strangers = threading.BoundedSemaphore(STRANGERS)
        self._allowed = {address for _, address in order.hosts}

    def start(self):
        """Listen; raises OSError."""
        family = socket.AF_INET6 if ":" in self.order.address else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((self.order.address, self.order.port))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, rank):
        """Take another rank unless somebody pulls from us; tell whether it was taken."""
        with self._lock:
            if self.child is None:
                self.rank = rank
            return self.rank == rank

    def _accept(self):
        while True:
            sock, peer = self._listener.accept()
            if peer[0] not in self._allowed or not self._strangers.acquire(blocking=False):
                self.say(f"refused a connection from {peer[0]}: none of this run's hosts")
                sock.close()
                continue
            threading.Thread(target=self._meet, args=(sock, peer[0]), daemon=True).start()

    def _meet(self, sock, peer):
        channel = Channel(sock, self.order.dead)
        try:
            try:
                rank, answer = hear_greeting(channel, self.secret, self.order)
            finally:
                self._strangers.release()
            word = self._admit(rank, channel)
            answer(word)
            if word == WELCOME:
                Child(self, channel).serve()
        except Gone as error:
            self.say(f"{peer}: {error}")
        finally:
            with self._lock:
                self.sent += channel.sent
                if self.child and self.child[1] is channel:
                    self.child = None
                    self.used = time.monotonic()
            channel.close()

    def _admit(self, rank, channel):
        with self._lock:
            if self.content is not None and self.rank >= rank:
                return LOWER
            if self.child and self.child[0] != rank and self.child[1].quiet() < CONTESTED * self.order.dead:
                return BUSY
            # The same one again has lost its connection, whatever we think of the old one.
            old, self.child = self.child, (rank, channel)
        if old:
            old[1].close()
        return WELCOME

    def pace(self, count):
        """Wait until so many bytes may go."""
        self._pace.take(count)

    def sent_so_far(self):
        """Return all bytes that were sent."""
        with self._lock:
            return self.sent + (self.child[1].sent if self.child else 0)


class Child:
    """One who pulls: its questions are read beside the answers."""

    def __init__(self, server, channel):
        """`channel` has greeted."""
        self.server, self.channel = server, channel
        self.questions, self.asked = collections.deque(), threading.Condition()
        self.gone = None

    def serve(self):
        """Answer until it is gone; raises Gone."""
        self.channel.beat()
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            with self.asked:
                self.asked.wait_for(lambda: self.questions or self.gone)
                if self.gone:
                    raise Gone(self.gone)
                question = self.questions.popleft()
            self._answer(*question)

    def _answer(self, kind, span, piece):
        if kind == PROBE:
            self.server.pace(self.server.order.piece)
            return self.channel.send(PROBE, body=bytes(self.server.order.piece))
        content = self.server.content
        while True:
            found = content.table(span) if kind == TABLE else content.piece(span, piece)
            if found is not None:
                break
            content.wait(BEAT_EVERY)
            if self.gone:
                raise Gone(self.gone)
        body = b"".join(found) if kind == TABLE else found
        self.server.pace(len(body))
        return self.channel.send(kind, span, piece, body)

    def _listen(self):
        try:
            while True:
                kind, span, piece, _ = self.channel.read(self._due)
                if kind != BEAT:
                    self._take(kind, span, piece)
        except Gone as error:
            with self.asked:
                self.gone = str(error)
                self.asked.notify_all()
            self.channel.close()  # the other thread may be in the middle of a piece that nobody takes

    def _due(self, kind, span, piece):
        order, content = self.server.order, self.server.content
        known = kind == PROBE and content is None
        if content is not None and kind in (TABLE, PIECE) and span < len(order.spans):
            known = kind == TABLE or piece < order.pieces(order.spans[span])
        return 0 if known else None

    def _take(self, kind, span, piece):
        with self.asked:
            if len(self.questions) >= QUESTIONS:
                raise Gone(f"asked more than {QUESTIONS} questions at once")
            self.questions.append((kind, span, piece))
            self.asked.notify_all()
