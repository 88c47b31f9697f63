"""The program's two ways: a rank of a gang, and the health check of its container."""

from __future__ import annotations

import os
import sys

from .names import add_mapped
from .settings import Settings, parse
from .state import healthy

USAGE = 2


def main() -> None:
    """Run as said on the command line; never returns."""
    told = parse(sys.argv[1:])
    if isinstance(told, Settings):
        sys.stdout.flush()
        os._exit(_run(told))  # a thread that still asks the engine how it is does not hold us up
    code, text = healthy(told)
    print(text)
    sys.exit(code)


def _run(settings: Settings) -> int:
    import asyncio

    key = os.environ.get("VLLM_API_KEY", "")
    if not key:
        print("gang: VLLM_API_KEY is not set: the ranks know each other by their engine key", file=sys.stderr)
        return USAGE
    add_mapped()
    return asyncio.new_event_loop().run_until_complete(_rank(settings, key))


async def _rank(settings: Settings, key: str) -> int:
    import asyncio

    from .leader import Leader
    from .member import Member
    from .rank import OTHERS_ENDED, STOPPED, Rank

    rank = Rank(settings, key)
    rank.forget()
    side = Leader(rank) if settings.rank == 0 else Member(rank)
    tasks = [asyncio.ensure_future(one) for one in (side.run(), rank.watch())]
    for task in tasks:
        task.add_done_callback(rank.failed)
    end = await rank.ended
    # All are told in the words of the rank where it began.
    words = end.text if end.code == OTHERS_ENDED else f"{rank.who}: {end.text}"
    if end.code == STOPPED and settings.rank == 0:
        # What is under way can still be answered, as long as the others live.
        code = await rank.close()
        await side.tell_end(words)
        return code
    _, code = await asyncio.gather(side.tell_end(words), rank.close())
    return code
