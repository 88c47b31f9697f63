"""Why a rank ends reaches the other one, however much it has not read: closed at once, a connection loses that."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable

import pytest
from tests.gang.ranks import KEY, Gang

from onprem_llm.gang_program.wire import Line, Who, admit, join

NOWHERE = ["/no/such/engine"]
SAID = "cannot start /no/such/engine: No such file or directory"


async def slow(line: Line, reader: asyncio.StreamReader) -> tuple[list[dict[str, object]], BaseException | None]:
    """Talk without listening for a while, then read to the end; return what was said, and how the connection broke."""
    with contextlib.suppress(OSError):
        for _ in range(20):
            line.say(beat=True)
            await asyncio.sleep(0.02)
    said: list[dict[str, object]] = []
    try:
        while text := await reader.readline():
            said.append(json.loads(text))
    except OSError as error:
        return said, error
    return said, None


def told(talk: Callable[[], Awaitable[tuple[list[dict[str, object]], BaseException | None]]]) -> str:
    """Return the last word of the program under test; it must come whole, and no reset after it."""
    said, broken = asyncio.run(asyncio.wait_for(talk(), 60))
    assert broken is None
    return str(said[-1].get("end"))


def test_rank_0_hears_why_a_member_ends(gang: Gang) -> None:
    gang.silence = 120  # we may be slow ourselves, on a machine that does other things

    async def leader() -> tuple[list[dict[str, object]], BaseException | None]:
        came: asyncio.Future[tuple[list[dict[str, object]], BaseException | None]] = asyncio.Future()

        async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = Line(reader, writer, 10)
            await admit(line, f"127.0.0.1:{gang.port}", KEY.encode(), 10)
            line.say(welcome=True)
            line.say(begin="e")
            came.set_result(await slow(line, reader))
            line.close()

        async with await asyncio.start_server(visited, "127.0.0.1", gang.port):
            gang.start(1, command=NOWHERE)
            return await came

    assert SAID in told(leader)


def test_a_member_hears_why_rank_0_ends(gang: Gang) -> None:
    gang.silence = 120

    async def member() -> tuple[list[dict[str, object]], BaseException | None]:
        gang.start(0, command=NOWHERE).waits_for("waits at")
        reader, writer = await asyncio.open_connection("127.0.0.1", gang.port)
        line = Line(reader, writer, 10)
        await join(line, f"127.0.0.1:{gang.port}", Who(1, 2, "r1", "host-1"), KEY.encode(), 10)
        try:
            return await slow(line, reader)
        finally:
            line.close()

    assert SAID in told(member)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_does_not_listen_holds_nobody_up_for_long(gang: Gang, rank: int) -> None:
    """The other one is stopped: the rank that ends waits a moment for it, and goes."""
    gang.silence = 20
    other = gang.start(1 - rank)
    other.waits_for("waits at" if rank else "has no rank 0")
    ends = gang.start(rank, command=["sleep", "600"])
    ends.waits_for("starts its engine")
    other.process.send_signal(19)
    ends.process.terminate()
    assert ends.process.wait(15) == 0  # less than the silence, after which anybody would go
