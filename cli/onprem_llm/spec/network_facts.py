"""The lines between hosts as facts.json keeps them, and what a plan may ask: may a gang be spread over these?"""

from collections.abc import Callable, Collection, Iterable, Sequence, Set
from typing import TypeVar

from pydantic import model_validator

from onprem_llm.spec.canonical import Listed, Size
from onprem_llm.spec.fields import Model

T = TypeVar("T")
TRIES = 20_000  # 20 ms: all pairs of 200 hosts


class LineFacts(Model):
    """One direction of a line: bit/s, bytes, and what is wrong with it, in words; none of that is known as null."""

    source: str
    target: str
    bits_per_second: Size | None
    mtu: Size | None
    problems: Listed[str]


class NetworkFacts(Model):
    """Every direction of every line that was measured, sorted, and when (ISO 8601, UTC)."""

    measured_at: str
    lines: Listed[LineFacts]

    @model_validator(mode="after")
    def _once(self) -> "NetworkFacts":
        seen: set[tuple[str, str]] = set()
        for line in self.lines:
            if (line.source, line.target) in seen or line.source == line.target:
                raise ValueError(f"lines: found {line.source} to {line.target} twice, or a line to itself")
            seen.add((line.source, line.target))
        return self

    def of(self, hosts: Collection[str]) -> "NetworkFacts":
        """Leave out the lines of other hosts."""
        kept = tuple(line for line in self.lines if {line.source, line.target} <= set(hosts))
        return NetworkFacts(measured_at=self.measured_at, lines=kept)


def bad_lines(network: NetworkFacts | None, hosts: Sequence[str]) -> tuple[str, ...]:
    """Say which lines between these hosts no gang belongs on, and why; nothing of what was never measured."""
    if network is None:
        return ()
    return tuple(f"{line.source} to {line.target}: {why}" for line in network.of(hosts).lines for why in line.problems)


def bad_pairs(network: NetworkFacts | None) -> Set[frozenset[str]]:
    """Return two hosts each, between which something is wrong with a line, one way or both."""
    return {frozenset((line.source, line.target)) for line in (network.lines if network else ()) if line.problems}


def joined_well(items: Sequence[T], name: Callable[[T], str], many: int, bad: Set[frozenset[str]]) -> list[T]:
    """Return as many items with good lines between the hosts of each two, the first ones where they can be; else none.

    `name`: an item's host. None are found, too, where it takes more than TRIES looks at an item.
    """
    tries = iter(range(TRIES))

    def extended(chosen: list[T], start: int) -> list[T]:
        if len(chosen) == many:
            return chosen
        for at in range(start, len(items) - (many - len(chosen)) + 1):
            if next(tries, None) is None:
                break
            item = items[at]
            if any(frozenset((name(one), name(item))) in bad for one in chosen):
                continue
            if found := extended([*chosen, item], at + 1):
                return found
        return []

    return extended([], 0)


def latest(networks: Iterable[NetworkFacts]) -> NetworkFacts:
    """Put one measurement or more together; of a line that was measured twice the later counts."""
    ordered = sorted(networks, key=lambda one: one.measured_at)
    lines = {(line.source, line.target): line for network in ordered for line in network.lines}
    return NetworkFacts(measured_at=ordered[-1].measured_at, lines=tuple(lines[way] for way in sorted(lines)))
