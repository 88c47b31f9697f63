"""The benchmark's client: N connections in a closed loop, with so little work a request that it hardly shows.

Plain sockets and epoll in a process of its own: asyncio's streams take longer for a request than the gateway does.
"""

import json
import multiprocessing
import select
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

Body = dict[str, object]
WAIT = 120  # seconds for any answer


class WrongAnswerError(Exception):
    """An answer that is not a 200; its text is the answer."""


@dataclass
class Way:
    """A way to the engine; what was measured on it: by round, seconds an answer, and answers a second."""

    name: str
    address: str
    port: int
    key: str
    model: str = "tiny"
    rounds: list[list[float]] = field(default_factory=list, init=False)
    rates: list[float] = field(default_factory=list, init=False)

    def request(self, body: Body) -> bytes:
        """Return a chat request, whole."""
        text = json.dumps({"model": self.model, **body}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        return head.encode() + text

    def quantile(self, share: float) -> float:
        """Return the median over the rounds of a quantile, in milliseconds: one bad moment is one bad round."""
        return statistics.median(quantile(times, share) for times in self.rounds) * 1000

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def round(self, bodies: Sequence[Body], clients: int) -> None:
        """Ask for all the bodies; each connection sends its next one when it has its answer."""
        requests = [self.request(body) for body in bodies]
        here, there = multiprocessing.get_context("fork").Pipe()
        child = multiprocessing.get_context("fork").Process(
            target=_in_child, args=(there, self.address, self.port, requests, clients)
        )
        child.start()
        there.close()
        found = here.recv()
        child.join()
        if isinstance(found, str):
            raise SystemExit(f"{self.name}: {found}")
        seconds, times = found
        self.rates.append(len(times) / seconds)
        self.rounds.append(times)

    def forget(self) -> None:
        """Forget what warmed up."""
        self.rounds.clear()
        self.rates.clear()


def quantile(times: Sequence[float], share: float) -> float:
    return sorted(times)[int(share * (len(times) - 1))]


def _in_child(pipe, address: str, port: int, requests: list[bytes], clients: int) -> None:  # type: ignore[no-untyped-def]
    try:
        pipe.send(ask(address, port, requests, clients))
    except (OSError, WrongAnswerError) as error:
        pipe.send(str(error) or type(error).__name__)


def ask(address: str, port: int, requests: Sequence[bytes], clients: int) -> tuple[float, list[float]]:
    """Return the seconds in all and for each answer."""
    poll = select.epoll()
    sockets = {}
    for _ in range(min(clients, len(requests))):
        one = socket.create_connection((address, port), WAIT)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(one, select.EPOLLIN)
        sockets[one.fileno()] = one
    clock, times, left = time.perf_counter, [], iter(requests)
    began = clock()
    sent, parts = {}, dict.fromkeys(sockets, b"")
    for number, one in sockets.items():
        sent[number] = clock()
        one.sendall(next(left))
    while sent:
        for number, _ in poll.poll(WAIT) or [(-1, 0)]:
            if number < 0:
                raise WrongAnswerError(f"no answer in {WAIT} s")
            part = sockets[number].recv(65536)
            parts[number] += part
            if not whole(parts[number], ended=not part):
                continue
            now = clock()
            times.append(now - sent.pop(number))
            parts[number] = b""
            request = next(left, None)
            if request:
                sent[number] = clock()
                sockets[number].sendall(request)
    seconds = clock() - began
    for one in sockets.values():
        one.close()
    return seconds, times


def whole(answer: bytes, *, ended: bool) -> bool:
    """Tell whether an answer is here as a whole."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if ended or (found and not head.startswith(b"HTTP/1.1 200")):
        raise WrongAnswerError(answer[:700].decode(errors="replace") or "the connection was closed")
    if not found:
        return False
    _, length, rest = head.lower().partition(b"content-length:")
    return len(body) >= int(rest.split(b"\r\n")[0]) if length else body.endswith(b"0\r\n\r\n")
