"""The samplers that `top` runs: one long-lived program on every host, over ssh."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from onprem_llm.engine_metrics import NAMES
from onprem_llm.resources import PACKAGE
from onprem_llm.ssh import Route
from onprem_llm.ssh_many import Streams
from onprem_llm.top_board import Board

# A host is asked anew so long after its program ended; ssh gives up on one that is off after 10 s.
RETRY_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 15.0


class Watch:
    """The samplers on all hosts, and what they said."""

    def __init__(self, known: Mapping[str, Route], interval: float) -> None:
        """Start nothing yet."""
        self.hosts = list(known)
        self.interval = interval
        self.board = Board(self.hosts, interval, time.monotonic())
        self._routes = known
        self._streams = Streams()
        self._argv = ["python3", "-c", (PACKAGE / "host_sampler.py").read_text(encoding="utf-8")]
        self._order = json.dumps({"interval": interval, "names": NAMES}).encode()

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Run a sampler on every host for as long as this lasts."""
        with self._streams:
            for host in self.hosts:
                self._start(host)
            yield

    def _start(self, host: str) -> None:
        self._streams.start(host, self._routes[host], self._argv, stdin=self._order)

    def follow(self, seconds: float) -> None:
        """Take in what comes for so many seconds, and ask hosts anew whose sampler ended a while ago."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._take(left)
        for host in self.board.ended_before(time.monotonic() - RETRY_SECONDS):
            self.board.again(host, time.monotonic())
            self._start(host)

    def one_sample(self) -> None:
        """Wait until every host has sent what rates are made of, or has failed to."""
        end = time.monotonic() + CONNECT_SECONDS + self.interval
        while not self.board.complete and (left := end - time.monotonic()) > 0:
            self._take(left)

    def _take(self, seconds: float) -> None:
        for piece in self._streams.read(seconds):
            self.board.take(piece, time.monotonic())
