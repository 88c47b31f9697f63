"""What ranks say to each other: lines of JSON over TCP, after both sides have proved that they know the engine key.

    member -> leader   {"rank": 1, "size": 2, "revision": "…", "me": "10.0.0.2", "nonce": a}
    leader -> member   {"nonce": b, "proof": HMAC(key, leader's, all of the above)}
    member -> leader   {"proof": HMAC(key, member's, all of the above)}
    leader -> member   {"welcome": true} or {"refused": why}

The key itself is never sent. What follows is not encrypted, no more than what the engines say to each other: the
hosts' firewall lets the members alone reach each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import socket
from typing import NamedTuple

VERSION = 1
LONGEST = 4096  # bytes of a line
MOST_RANKS = 4096
# What ends a conversation: the other side's fault or the network's.
Lost = (OSError, EOFError, asyncio.TimeoutError)

Message = dict[str, object]


class RefusedError(Exception):
    """One side does not take the other for a rank of its gang; the text says why, for a person."""


class Who(NamedTuple):
    """A rank as it introduces itself."""

    rank: int
    size: int
    revision: str
    me: str

    def __str__(self) -> str:
        """Return the rank and its host, as every message names them."""
        return f"rank {self.rank} ({self.me})"


class Line:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence: float) -> None:
        """Make the kernel notice within `silence` seconds that the other host is gone."""
        self._reader, self._writer, self._said_all = reader, writer, False
        connection = writer.get_extra_info("socket")
        self._socket = connection.fileno()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(silence / 2)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(silence / 5)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence * 1000))

    def say(self, **message: object) -> None:
        """Send a message; whether it arrives shows in what is heard.

        Past the transport where that waits for nothing: one that finds the other side gone takes the connection down,
        and with it the other's last word, which may lie here unread.
        """
        if self._writer.is_closing() or self._said_all:
            return
        text, sent = json.dumps(message).encode() + b"\n", 0
        if not self._writer.transport.get_write_buffer_size():
            try:
                sent = os.write(self._socket, text)
            except BlockingIOError:
                pass
            except OSError:
                return
        if sent < len(text):
            self._writer.write(text[sent:])

    def say_last(self, **message: object) -> None:
        """Send a message after which nothing more comes; the other side reads on until it has it, then hangs up.

        We read on as well, and close after that: a kernel that closes what holds unread bytes breaks the connection,
        and what was said last is lost with it.
        """
        self.say(**message)
        with contextlib.suppress(OSError):
            if not self._writer.is_closing() and not self._said_all:
                self._writer.write_eof()
        self._said_all = True

    async def hear(self, limit: float) -> Message:
        """Return the next message. Raises one of Lost, RefusedError where it is none."""
        try:
            line = await asyncio.wait_for(self._reader.readline(), limit)
        except ValueError:
            raise RefusedError(f"it sent a line of more than {LONGEST} bytes") from None
        if not line.endswith(b"\n"):
            raise EOFError
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise RefusedError("it does not speak as a rank of a gang does")
        return message

    async def flush(self, limit: float) -> None:
        """Wait until all is handed to the kernel, for `limit` seconds at most. Raises one of Lost."""
        await asyncio.wait_for(self._writer.drain(), limit)

    def close(self) -> None:
        """Close at once."""
        self._writer.transport.abort()


def why(error: BaseException) -> str:
    """Say what went wrong with a connection, always in the same words: only a change is worth a line in the log."""
    if isinstance(error, asyncio.TimeoutError):
        return "it does not answer"
    if isinstance(error, EOFError):
        return "it closed the connection"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


async def join(line: Line, leader: str, mine: Who, key: bytes, limit: float) -> None:
    """Be let in by the leader. Raises RefusedError, or one of Lost."""
    nonce = secrets.token_hex(16)
    line.say(**mine._asdict(), nonce=nonce)
    answer = await line.hear(limit)
    other = _text(answer, "nonce")
    if not _proved(answer, _proof(key, "leader", leader, mine, nonce, other)):
        raise RefusedError("it has not the engine key that we have (VLLM_API_KEY)")
    line.say(proof=_proof(key, "member", leader, mine, nonce, other))
    verdict = await line.hear(limit)
    if "welcome" not in verdict:
        raise RefusedError(_text(verdict, "refused"))


async def admit(line: Line, leader: str, key: bytes, limit: float) -> Who:
    """Return who asks to be let in, once that is proved; the verdict is the caller's. Raises as `join` does."""
    hello = await line.hear(limit)
    rank, size = hello.get("rank"), hello.get("size")
    if not isinstance(rank, int) or not isinstance(size, int) or not 0 < size <= MOST_RANKS or not 0 <= rank < size:
        raise RefusedError("it does not speak as a rank of a gang does")
    who = Who(rank, size, _text(hello, "revision"), _text(hello, "me"))
    nonce, mine = _text(hello, "nonce"), secrets.token_hex(16)
    line.say(nonce=mine, proof=_proof(key, "leader", leader, who, nonce, mine))
    try:
        answer = await line.hear(limit)
    except EOFError:
        raise RefusedError("it has another engine key (VLLM_API_KEY), or went away") from None
    if not _proved(answer, _proof(key, "member", leader, who, nonce, mine)):
        raise RefusedError("it has not the engine key that we have (VLLM_API_KEY)")
    return who


def _proof(key: bytes, side: str, leader: str, who: Who, nonce: str, other: str) -> str:
    said = json.dumps([VERSION, side, leader, *who, nonce, other])
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def _proved(answer: Message, wanted: str) -> bool:
    return hmac.compare_digest(_text(answer, "proof").encode(), wanted.encode())


def _text(message: Message, name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1000 or not value.isprintable():
        raise RefusedError("it does not speak as a rank of a gang does")
    return value
