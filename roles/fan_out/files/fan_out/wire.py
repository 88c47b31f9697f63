# SPDX-License-Identifier: Apache-2.0
"""What hosts say to each other: frames of 13 bytes and a body, after both have proved that they know the run's secret.

The one that pulls asks for a span's TABLE (the sha256 of each of its pieces) and for PIECEs; the one that serves
answers in the order of the questions. Both send BEAT when they have nothing else to say.
"""

import contextlib
import hashlib
import hmac
import os
import socket
import struct
import threading
import time

TABLE, PIECE, BEAT, PROBE = b"T", b"P", b"H", b"B"
# The answers to a hello.
WELCOME, BUSY, LOWER = b"W", b"Y", b"R"
BEAT_EVERY = 0.5  # seconds
SMALL = 64 * 1024  # bytes that go in one call with their head
_HEAD = struct.Struct("!cIII")
_HELLO = struct.Struct("!I16s32s")
_NONCE, _MAC = 16, 32


class Gone(Exception):  # noqa: N818
    """The peer has closed, is silent, or is none of this run."""


class Channel:
    """A socket with frames. One that is silent for `dead` seconds is gone; one that is slow is not: both sides beat."""

    def __init__(self, sock, dead):
        """Take a socket; nothing beats yet."""
        self.sock, self.dead = sock, dead
        sock.settimeout(dead)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard = self.said = time.monotonic()
        self.sent = self.received = 0
        self._turn, self._closed = threading.Lock(), threading.Event()

    def beat(self):
        """Say from now on that we live, whatever the other threads wait for: a disk may take longer than `dead`."""
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self):
        while not self._closed.wait(BEAT_EVERY / 2):
            if time.monotonic() - self.said >= BEAT_EVERY and self._turn.acquire(blocking=False):
                try:
                    self.send_raw(_HEAD.pack(BEAT, 0, 0, 0))
                except Gone:
                    return
                finally:
                    self._turn.release()

    def quiet(self):
        """Return the seconds since the peer said anything."""
        return time.monotonic() - self.heard

    def close(self):
        """Close it under whoever reads or writes."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def send(self, kind, span=0, piece=0, body=b""):
        """Send a frame; raises Gone."""
        head = _HEAD.pack(kind, span, piece, len(body))
        with self._turn:
            if len(body) < SMALL:
                return self.send_raw(head + body)
            self.send_raw(head)
            return self.send_raw(body)

    def send_raw(self, data):
        """Send bytes; raises Gone. A peer that takes none, but beats, waits for its disk."""
        view = memoryview(data)
        while view:
            try:
                count = self.sock.send(view)
            except socket.timeout:
                if self.quiet() > self.dead:
                    raise Gone(f"silent for {self.dead:g} s") from None
                continue
            except OSError as error:
                raise Gone(error.strerror or str(error)) from None
            view = view[count:]
            self.said = time.monotonic()
            self.sent += count

    def read_raw(self, count):
        """Return exactly `count` bytes; raises Gone."""
        data = bytearray(count)
        view = memoryview(data)
        try:
            while view:
                got = self.sock.recv_into(view)
                if not got:
                    raise Gone("closed")
                view = view[got:]
                self.heard = time.monotonic()
                self.received += got
        except OSError as error:
            raise Gone(error.strerror or str(error)) from None
        return data

    def read(self, due):
        """Return (kind, span, piece, body); raises Gone.

        `due(kind, span, piece)` returns the bytes of the body that such a frame has, None where none such is due. All
        else ends the connection: a head that changed on its way would leave us waiting for an answer that has come.
        """
        kind, span, piece, size = _HEAD.unpack(bytes(self.read_raw(_HEAD.size)))
        if size != (0 if (kind, span, piece) == (BEAT, 0, 0) else due(kind, span, piece)):
            raise Gone("sent what was not asked for")
        return kind, span, piece, self.read_raw(size) if size else b""


def _mac(secret, *parts):
    return hmac.new(secret, b"\0".join(parts), hashlib.sha256).digest()


def table_mac(secret, order, span, table):
    """Return what proves that a host of the run has compared the span with the manifest when it made the table."""
    return _mac(secret, b"table", order.digest, str(span.number).encode(), bytes(table))


def greet(channel, secret, order, rank):
    """Prove to a serving host that we belong to the run, and it to us; return its answer. Raises Gone."""
    theirs = bytes(channel.read_raw(_NONCE))
    ours = os.urandom(_NONCE)
    number = str(rank).encode()
    channel.send_raw(_HELLO.pack(rank, ours, _mac(secret, b"pull", order.digest, number, theirs, ours)))
    answer = bytes(channel.read_raw(1))
    if not hmac.compare_digest(
        bytes(channel.read_raw(_MAC)), _mac(secret, b"serve", order.digest, answer, ours, theirs)
    ):
        raise Gone("it does not know this run's secret")
    return answer


def hear_greeting(channel, secret, order):
    """Return the rank of one who pulls and a function that sends the answer; raises Gone where it knows no secret."""
    ours = os.urandom(_NONCE)
    channel.send_raw(ours)
    rank, theirs, proof = _HELLO.unpack(bytes(channel.read_raw(_HELLO.size)))
    if not hmac.compare_digest(proof, _mac(secret, b"pull", order.digest, str(rank).encode(), ours, theirs)):
        raise Gone("it does not know this run's secret, or is of another run")

    def answer(word):
        channel.send_raw(word + _mac(secret, b"serve", order.digest, word, theirs, ours))

    return rank, answer
