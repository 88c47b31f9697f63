"""Rank 0: lets the others in, says when to begin, whether the gang serves, and why it ends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict

from .rank import Rank
from .state import answers
from .wire import LONGEST, Line, Lost, RefusedError, Who, admit, why

PORT_TAKEN = 72
# Strangers at the door at once; where there are more, the one that has stood there longest goes.
MOST_AT_DOOR = 16
MOST_REASONS = 64  # that are remembered, so that each is said once


class Leader:
    """The gang as rank 0 sees it."""

    def __init__(self, rank: Rank) -> None:
        """Nobody is there yet."""
        self._rank = rank
        self._epoch = secrets.token_hex(4)
        self._serves = False
        self._members: dict[int, tuple[Who, Line]] = {}
        self._alone = asyncio.Event()  # since the last member went
        self._door: OrderedDict[Line, None] = OrderedDict()
        self._said: set[str] = set()

    async def run(self) -> None:
        """Lead until the rank ends."""
        host, port = self._rank.settings.leader
        try:
            await asyncio.start_server(self._visit, host, port, limit=LONGEST, backlog=64)
        except OSError as error:
            self._rank.finish(f"cannot listen on {self._rank.leader}: {why(error)}", PORT_TAKEN)
            return
        self._count()
        await asyncio.gather(self._beat(), self._ask_engine())

    async def tell_end(self, reason: str) -> None:
        """Tell all others why this rank ends, and give them a moment to hear that and to go."""
        for _, line in self._members.values():
            line.say_last(end=reason)
        if self._members:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._alone.wait(), self._rank.settings.last_word)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ["somebody"])[0])
        try:
            line = Line(reader, writer, self._rank.settings.silence)
        except OSError:  # gone already
            writer.transport.abort()
            return
        try:
            who = await self._at_door(line)
            if who is not None:
                await self._member(who, line)
        except RefusedError as error:
            self._say_once(f"{address} was not let in: {error}")
        except Lost as error:
            self._say_once(f"{address} came and went: {why(error)}")
        finally:
            line.close()

    async def _at_door(self, line: Line) -> Who | None:
        """Return a rank that is let in; None where it was told why not."""
        if len(self._door) >= MOST_AT_DOOR:
            self._door.popitem(last=False)[0].close()
        self._door[line] = None
        try:
            settings = self._rank.settings
            who = await admit(line, self._rank.leader, self._rank.key, settings.silence / 2)
        finally:
            self._door.pop(line, None)
        refused = self._refusal(who)
        if refused is None:
            line.say(welcome=True)
            return who
        self._say_once(f"{who} was not let in: {refused}")
        line.say(refused=refused)
        with contextlib.suppress(*Lost):
            await line.flush(1)
            await line.hear(1)  # it reads, then closes
        return None

    def _refusal(self, who: Who) -> str | None:
        mine = self._rank.who
        if who.revision != mine.revision:
            return f"it is of revision {who.revision}, rank 0 of {mine.revision}"
        if who.size != mine.size:
            return f"it expects {who.size} ranks, rank 0 {mine.size}"
        if who.rank == 0:
            return f"rank 0 is {mine.me}"
        if who.rank in self._members:
            return f"{self._members[who.rank][0]} is there already"
        return None

    async def _member(self, who: Who, line: Line) -> None:
        """Hear a member until it goes."""
        self._members[who.rank] = (who, line)
        self._alone.clear()
        self._count()
        try:
            reason = await self._heard(who, line)
        finally:
            del self._members[who.rank]
            if not self._members:
                self._alone.set()
        if self._rank.begun:
            self._rank.lost(reason)
        else:
            self._rank.say(reason)
            self._count()

    async def _heard(self, who: Who, line: Line) -> str:
        """Return why the member is none any more."""
        while True:
            try:
                message = await line.hear(self._rank.settings.silence)
            except (*Lost, RefusedError) as error:
                return f"{who} is gone: {why(error)}"
            if "end" in message:
                return str(message["end"])[:1000]

    def _count(self) -> None:
        if self._rank.begun:
            return
        missing = [str(rank) for rank in range(1, self._rank.who.size) if rank not in self._members]
        if missing:
            self._rank.stand("waiting", f"waits at {self._rank.leader} for rank {', '.join(missing)}")
            return
        for _, line in self._members.values():
            line.say(begin=self._epoch)
        self._rank.begin(self._epoch)

    async def _beat(self) -> None:
        while True:
            for _, line in self._members.values():
                line.say(beat=True, serves=self._serves)
            await asyncio.sleep(self._rank.settings.beat)

    async def _ask_engine(self) -> None:
        """Wait until our engine answers: it does once all the ranks' engines have met."""
        url = self._rank.settings.health or ""
        while not (self._rank.begun and await asyncio.to_thread(answers, url)):
            await asyncio.sleep(self._rank.settings.beat / 2)
        if not self._rank.ended.done():
            self._serves = True
            self._rank.ready(self._epoch)

    def _say_once(self, text: str) -> None:
        if text not in self._said and len(self._said) < MOST_REASONS:
            self._said.add(text)
            self._rank.say(text)
