"""What a rank is told on its command line."""

from __future__ import annotations

import argparse
from typing import NamedTuple

STATE = "/tmp/onprem-llm-gang.json"  # noqa: S108  the container's own, where nobody else writes


class Settings(NamedTuple):
    """One rank of a gang. Addresses are of hosts, times are seconds."""

    rank: int
    size: int
    leader: tuple[str, int]  # where rank 0 listens
    me: str
    revision: str
    command: tuple[str, ...]
    health: str | None  # URL that answers 200 once rank 0's engine serves
    state: str  # the file that `--healthy` reads
    beat: float
    silence: float  # after which another rank counts as dead
    grace: float  # between SIGTERM and SIGKILL when this rank is stopped

    @property
    def last_word(self) -> float:
        """How long a rank that ends waits for the others to have heard why."""
        return self.silence / 4


def parse(arguments: list[str]) -> Settings | str:
    """Return the settings, or the state file's path where `--healthy` asks how it stands. Ends with 2 if refused."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        "gang.py", description=f"{__doc__} The engine's command follows after --.", allow_abbrev=False
    )
    parser.add_argument("--healthy", action="store_true", help="health check: 0 healthy, 1 not, 75 waits for others")
    parser.add_argument("--rank", type=int, help="of this host, from 0 on; rank 0 leads")
    parser.add_argument("--size", type=int, help="number of ranks")
    parser.add_argument("--leader", type=_address, metavar="ADDR:PORT", help="where rank 0 listens")
    parser.add_argument("--me", metavar="ADDR", help="this host's address, for messages")
    parser.add_argument("--revision", metavar="TOKEN", help="ranks with another one are not of this gang")
    parser.add_argument("--health", metavar="URL", help="rank 0: answers 200 once its engine serves")
    parser.add_argument("--state", default=STATE, help="file for --healthy (%(default)s)")
    parser.add_argument("--beat", type=float, default=2.0, help="seconds between signs of life (%(default)s)")
    parser.add_argument("--silence", type=float, default=10.0, help="seconds until a rank is dead (%(default)s)")
    parser.add_argument("--grace", type=float, default=20.0, help="seconds to end on SIGTERM (%(default)s)")
    given = parser.parse_args(arguments[:cut])
    if given.healthy:
        return str(given.state)
    missing = [f"--{name}" for name in ("rank", "size", "leader", "me", "revision") if getattr(given, name) is None]
    if missing:
        parser.error(f"missing: {', '.join(missing)}")
    if not 0 <= given.rank < given.size:
        parser.error(f"--rank {given.rank}: expected 0 to {given.size - 1}, for --size {given.size}")
    if given.rank == 0 and not given.health:
        parser.error("--health: rank 0 has to be told where its engine answers")
    if not arguments[cut + 1 :]:
        parser.error("no command after --")
    values = {name: getattr(given, name) for name in Settings._fields if name != "command"}
    return Settings(command=tuple(arguments[cut + 1 :]), **values)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r}: expected ADDR:PORT")
    return host.strip("[]"), int(port)
