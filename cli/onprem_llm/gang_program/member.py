"""Ranks from 1 on: find the leader, begin when it says so, and end when it does."""

from __future__ import annotations

import asyncio
import contextlib

from .rank import Rank
from .wire import LONGEST, Line, Lost, RefusedError, join, why

# Seconds between two attempts to reach the leader.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0


class Member:
    """The gang as another rank sees it."""

    def __init__(self, rank: Rank) -> None:
        """No leader is found yet."""
        self._rank = rank
        self._line: Line | None = None
        self._over = asyncio.Event()  # nothing more comes from the leader

    async def run(self) -> None:
        """Follow the leader until the rank ends."""
        pause = FIRST_PAUSE_S
        while not self._rank.ended.done():
            try:
                await self._follow()
                pause = FIRST_PAUSE_S
            except RefusedError as error:
                self._apart(f"is not let in by rank 0 at {self._rank.leader}: {error}")
            except Lost as error:
                self._apart(f"has no rank 0 at {self._rank.leader}: {why(error)}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_S)

    async def tell_end(self, reason: str) -> None:
        """Tell rank 0 why this rank ends, and give it a moment to hear that."""
        if self._line is not None:
            self._line.say_last(end=reason)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), self._rank.settings.last_word)

    def _apart(self, text: str) -> None:
        if self._rank.begun:
            self._rank.lost(text)
        elif not self._rank.ended.done():
            self._rank.stand("waiting", text)

    async def _follow(self) -> None:
        """Follow one connection. Raises RefusedError or one of Lost when that is over."""
        rank, settings = self._rank, self._rank.settings
        opening = asyncio.open_connection(*settings.leader, limit=LONGEST)
        line = Line(*await asyncio.wait_for(opening, settings.silence / 2), settings.silence)
        try:
            await join(line, rank.leader, rank.who, rank.key, settings.silence / 2)
            self._line = line
            self._over.clear()
            rank.stand("waiting", f"is let in by rank 0 at {rank.leader}: waits until all are there")
            beating = asyncio.ensure_future(self._beat(line))
            try:
                await self._heed(line)
            finally:
                beating.cancel()
        finally:
            self._over.set()
            # In the end the last word may still be on its way.
            if not rank.ended.done():
                self._line = None
                line.close()

    async def _heed(self, line: Line) -> None:
        """Do what the leader says, until it says that it ends; when this rank ends, hear what is on its way."""
        rank, epoch = self._rank, ""
        while True:
            message = await line.hear(rank.settings.silence)
            if "begin" in message and not rank.begun and not rank.ended.done():
                epoch = str(message["begin"])[:40]
                rank.begin(epoch)
            if message.get("serves") is True and rank.begun and not rank.ended.done():
                rank.ready(epoch)
            if "end" in message:
                self._apart(str(message["end"])[:1000])
                return

    async def _beat(self, line: Line) -> None:
        while True:
            line.say(beat=True)
            await asyncio.sleep(self._rank.settings.beat)
