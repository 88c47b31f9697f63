"""Attempts to reach the outside, as people read them: one line for what one program tried again and again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onprem_llm.lab.closed import is_probe

# What tells one line from another; times, ports of the sender and process numbers do not.
SAME = ("host", "protocol", "destination", "port", "name", "command", "unit", "container", "note")
LONGEST = 100


@dataclass(frozen=True)
class Attempt:
    """What one program on one host tried, `count` times; `first` and `last` as ISO 8601 in UTC."""

    host: str
    protocol: str
    destination: str
    port: int
    name: str | None
    command: str | None
    parents: tuple[str, ...]
    unit: str | None
    container: Mapping[str, Any] | None
    note: str | None
    pid: int | None
    first: str
    last: str
    count: int = 1

    @property
    def where(self) -> str:
        """Name what was asked for: a name at a name server, an address with port and protocol."""
        address = f"[{self.destination}]" if ":" in self.destination else self.destination
        place = f"{address}:{self.port}/{self.protocol}" if self.port else f"{address} {self.protocol}"
        return f"{self.name} (asked of {place})" if self.name else place

    @property
    def who(self) -> str:
        """Name the process, or say why it is not known."""
        text = " ".join((self.command or f"unknown: {self.note}").split())
        inside = f" in container {self.container['name']}" if self.container else ""
        return (text if len(text) <= LONGEST else text[: LONGEST - 1] + "…") + inside


def group(recorded: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Attempt]:
    """Put together what is the same (host → attempts as its recorder wrote them); our own probes are left out."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for host, attempts in recorded.items():
        for one in attempts:
            if not is_probe(one):
                whole = {**one, "host": host}
                found.setdefault(repr([whole.get(key) for key in SAME]), []).append(whole)
    return sorted((_joined(same) for same in found.values()), key=lambda one: (one.first, one.host))


def _joined(same: list[Mapping[str, Any]]) -> Attempt:
    one = same[0]
    times = sorted(str(item["time"]) for item in same)
    return Attempt(
        **{key: one[key] for key in SAME},
        parents=tuple(one["parents"]),
        pid=one["pid"],
        first=times[0],
        last=times[-1],
        count=len(same),
    )
