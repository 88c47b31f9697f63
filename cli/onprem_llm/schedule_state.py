"""What hosts say of schedules: what they were given, and what they have decided of it by their clocks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from onprem_llm.json_values import is_mapping
from onprem_llm.probe_values import mapping, number, text, text_map, texts


@dataclass(frozen=True, slots=True)
class Decided:
    """Which entry is in force: how many of `slots` replicas run, which do not, and what comes next.

    Times are the host's wall clock in the schedule's time zone, `2026-11-23T07:00`.
    """

    replicas: int
    slots: int
    off: frozenset[str]
    since: str | None
    next_at: str | None
    next_replicas: int | None

    @property
    def said(self) -> str:
        """Say it in a line: `1 of 3 now, 3 at Mon 07:00`."""
        now = f"{self.replicas} of {self.slots} now"
        if self.next_at is None or self.next_replicas is None:
            return now
        return f"{now}, {self.next_replicas} at {_short(self.next_at)}"


@dataclass(frozen=True, slots=True)
class HostSchedule:
    """One deployment's schedule on one host. `files`: table.json and timer -> sha256; `armed`: its timer waits.

    `held`: a change is under way, or was cut off, and the clock is not followed meanwhile. `resting`: the host's
    replicas are left as they are, `drained` until that ends, `briefly` by a drain under way; None: they are not.
    """

    files: Mapping[str, str]
    armed: bool
    order: tuple[str, ...]
    decided: Decided | None
    held: bool = False
    resting: str | None = None


def parse_schedules(raw: object) -> dict[str, HostSchedule]:
    """Make deployment -> schedule from the probe's JSON."""
    return {name: _schedule(value) for name, value in mapping(raw).items() if is_mapping(value)}


def _schedule(raw: Mapping[str, object]) -> HostSchedule:
    return HostSchedule(
        text_map(raw.get("files")),
        bool(raw.get("armed")),
        texts(raw.get("order")),
        _decided(raw.get("decided")),
        bool(raw.get("held")),
        text(raw, "resting"),
    )


def _decided(raw: object) -> Decided | None:
    if not is_mapping(raw):
        return None
    coming = mapping(raw.get("next"))
    off = frozenset(texts(raw.get("off")))
    at, many = text(coming, "at"), number(coming, "replicas")
    return Decided(number(raw, "replicas") or 0, number(raw, "slots") or 0, off, text(raw, "since"), at, many)


def _short(at: str) -> str:
    try:
        return datetime.fromisoformat(at).strftime("%a %H:%M")
    except ValueError:
        return at
