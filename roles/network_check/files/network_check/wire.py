# SPDX-License-Identifier: Apache-2.0
"""Lines of JSON between two hosts of a run, which prove to each other that they know its secret."""

import hashlib
import hmac
import json
import secrets
import socket

LONGEST = 256 * 1024  # bytes of a line
CONNECT = 3  # seconds
GREET = 5
MEET, WHERE = "meet", "where"  # what somebody comes for: to measure a pair, or to ask how far we are
GO, WAIT, OVER = "go", "wait", "over"  # what we say to one who comes to measure


class Lost(Exception):  # noqa: N818  it is told to people, "error" adds nothing
    """The line to another host is gone, or what comes from there is none of this run's."""


class Line:
    """One connection."""

    def __init__(self, sock):
        """Take a connected socket."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.rest = sock, b""

    def say(self, **message):
        """Send one message; raises Lost."""
        try:
            self.sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Lost(words(error)) from None

    def hear(self, timeout):
        """Return the next message, waiting so many seconds for it; raises Lost."""
        self.sock.settimeout(timeout)
        while b"\n" not in self.rest:
            if len(self.rest) > LONGEST:
                raise Lost("what came is no line of this run")
            try:
                data = self.sock.recv(65536)
            except OSError as error:
                raise Lost(words(error)) from None
            if not data:
                raise Lost("the other host ended the connection")
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        try:
            found = json.loads(line.decode("utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Lost("what came is no message of this run")
        return found

    def ask(self, timeout, **message):
        """Send a message and return the answer; raises Lost."""
        self.say(**message)
        return self.hear(timeout)

    def close(self):
        """End it."""
        self.sock.close()


def proof(secret, who, nonces, rank, number, purpose):
    """Return what only one who knows the secret can say, and not again to another nonce."""
    text = json.dumps([who, *nonces, rank, number, purpose])
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def dial(order, rank, number, purpose):
    """Reach a host of the run; return (its line, its answer, its round). Raises OSError, Lost."""
    sock = socket.create_connection((order.hosts[rank][1], order.port), CONNECT, (order.address, 0))
    line = Line(sock)
    try:
        theirs, ours = str(line.hear(GREET).get("nonce")), secrets.token_hex(16)
        said = {"rank": order.rank, "round": number, "purpose": purpose}
        own = proof(order.secret, "caller", (theirs, ours), order.rank, number, purpose)
        answer = line.ask(GREET, nonce=ours, proof=own, **said)
        wanted = proof(order.secret, "called", (theirs, ours), rank, answer.get("round"), answer.get("answer"))
        if not hmac.compare_digest(wanted, str(answer.get("proof"))):
            raise Lost("who answers there does not know this run's secret")
    except BaseException:
        line.close()
        raise
    return line, answer["answer"], answer["round"]


def greeted(line, order):
    """Let a caller prove itself; return (its rank, its round, its purpose, how to answer it). Raises Lost."""
    ours = secrets.token_hex(16)
    said = line.ask(GREET, nonce=ours)
    rank, number, purpose, theirs = (said.get(name) for name in ("rank", "round", "purpose", "nonce"))
    own = proof(order.secret, "caller", (ours, theirs), rank, number, purpose)
    if not hmac.compare_digest(own, str(said.get("proof"))):
        raise Lost("a caller does not know this run's secret")

    def answer(word, at):
        line.say(answer=word, round=at, proof=proof(order.secret, "called", (ours, theirs), order.rank, at, word))

    return rank, number, purpose, answer


def words(error):
    """Say an error of a connection in a few words."""
    if isinstance(error, socket.timeout):
        return "no answer in time"
    return error.strerror or str(error) or type(error).__name__
