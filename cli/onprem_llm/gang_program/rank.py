"""What leader and member have in common: the engine, how it stands, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from .engine import Engine, stopped
from .settings import Settings
from .state import State, write
from .wire import Who

# Exit codes; the engine's own beside them.
STOPPED, FAILED, OTHERS_ENDED, ENDED_ITSELF, HUNG, NO_COMMAND = 0, 1, 69, 70, 71, 127
# After a failure nobody waits for answers any more: what hangs is not given long.
FAILED_GRACE_S = 3.0


class End(NamedTuple):
    """Why this rank ends, and its exit code: STOPPED where that was asked for."""

    text: str
    code: int


class Rank:
    """One rank in one life of its program: it waits, starts its engine once, and ends."""

    def __init__(self, settings: Settings, key: str) -> None:
        """`key`: the engine's, which all ranks of a deployment have."""
        self.settings, self.key = settings, key.encode()
        self.who = Who(settings.rank, settings.size, settings.revision, settings.me)
        host, port = settings.leader
        self.leader = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.begun = False
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._engine = Engine(settings.command, self._engine_ended)
        self._phase, self._text = "waiting", "begins"

    def say(self, text: str) -> None:
        """Write a line to the log that names the rank and its host."""
        print(f"gang: {self.who}: {text}", file=sys.stderr, flush=True)

    def stand(self, phase: str, text: str) -> None:
        """Say how this rank stands where that has changed, to the log and to the health check."""
        if text != self._text:
            self.say(text)
        self._phase, self._text = phase, text
        self._write()

    def begin(self, epoch: str) -> None:
        """Start the engine: all ranks are there."""
        self.begun = True
        try:
            self._engine.start()
        except OSError as error:
            self.finish(f"cannot start {self.settings.command[0]}: {error.strerror}", NO_COMMAND)
            return
        self.stand("starting", f"all {self.who.size} ranks are there: starts its engine (epoch {epoch})")

    def ready(self, epoch: str) -> None:
        """Say that the gang serves."""
        self.stand("ready", f"the gang serves (epoch {epoch})")

    def finish(self, text: str, code: int) -> None:
        """End, for the first reason that comes up."""
        if not self.ended.done():
            self.ended.set_result(End(text, code))

    def lost(self, other: str) -> None:
        """End because of another rank."""
        self.finish(other, OTHERS_ENDED)

    def failed(self, task: asyncio.Future[None]) -> None:
        """End because of an error of this program's own; for a task that is done."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            traceback.print_exception(type(error), error, error.__traceback__)
            self.finish(f"the gang's program failed: {error!r}", FAILED)

    async def watch(self) -> None:
        """Go on telling the health check that we live, and look whether the engine was stopped; until the end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._engine.reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.finish, "was stopped", STOPPED)
        since = loop.time()
        while not self.ended.done():
            self._write()
            await asyncio.wait([self.ended], timeout=self.settings.beat)
            held = stopped() if self.begun else []
            since = since if held else loop.time()
            if loop.time() - since > self.settings.silence:
                self.finish(f"process {held[0]} of its engine is stopped (SIGSTOP)", HUNG)

    async def close(self) -> int:
        """End the engine and return the exit code."""
        end = await self.ended
        self.stand("ending", f"{end.text}: ends its engine" if self.begun else end.text)
        writing = asyncio.ensure_future(self._keep_writing())
        asked = end.code == STOPPED
        gone = await self._engine.stop(self.settings.grace if asked else FAILED_GRACE_S, gently=asked)
        writing.cancel()
        if not gone:
            self.say("some processes of its engine do not end, not by SIGKILL either; they end with the container")
        return end.code

    async def _keep_writing(self) -> None:
        while True:
            self._write()
            await asyncio.sleep(self.settings.beat)

    def _engine_ended(self, code: int) -> None:
        self.finish(f"its engine ended with exit code {code}", code or ENDED_ITSELF)

    def _write(self) -> None:
        settings = self.settings
        state = State(self._phase, f"{self.who}: {self._text}", time.monotonic(), settings.silence, settings.health)
        with contextlib.suppress(OSError):  # a full disk is no reason to end; a check that sees nothing new will say it
            write(settings.state, state)

    def forget(self) -> None:
        """Remove what an earlier life told the health check."""
        with contextlib.suppress(OSError):
            Path(self.settings.state).unlink()
