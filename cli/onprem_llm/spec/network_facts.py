"""The lines between hosts as facts.json keeps them, and what a plan may ask: may a gang be spread over these?"""

from collections.abc import Collection, Sequence

from pydantic import model_validator

from onprem_llm.spec.canonical import Listed, Size
from onprem_llm.spec.fields import Model


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
