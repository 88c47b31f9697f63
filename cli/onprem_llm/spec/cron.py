"""Times as cron writes them, `minute hour day-of-month month day-of-week`, of which each field has one meaning.

Nothing but what systemd's calendar and a table on a host can say too: values, ranges, lists, steps and names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LENGTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
EXAMPLE: Final = '"0 7 * * mon-fri" (minute, hour, day of the month, month, day of the week)'
NIGHT: Final = (22, 23, 0, 1, 2, 3)
PART: Final = re.compile(r"(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/([0-9]+))?")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    names: Mapping[str, int]


FIELDS: Final = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of the month", 1, 31, {}),
    _Field("month", 1, 12, {name: at for at, name in enumerate(MONTHS, 1)}),
    _Field("day of the week", 0, 7, {name: at for at, name in enumerate(WEEKDAYS)}),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """When something is due, each as all values that count; `weekdays` has 0 for Sunday."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]

    @property
    def calendar(self) -> str:
        """The same as systemd's OnCalendar= has it, without a time zone; every value is written out."""
        week = _listed(self.weekdays, 7, [name.capitalize() for name in WEEKDAYS])
        months, days = _listed(self.months, 12), _listed(self.days, 31)
        at = f"{_listed(self.hours, 24)}:{_listed(self.minutes, 60)}:00"
        return " ".join(part for part in ("" if week == "*" else week, f"*-{months}-{days}", at) if part)

    @property
    def after_gaps(self) -> str | None:
        """The times at which an hour that the clock has left out may end, for entries that may lie in one; else None.

        systemd passes over a time that the clock leaves out as it is put forward. That is between 22:00 and 04:00, for
        two hours at most, and the clock goes on at a whole hour, 30 or 45 minutes past one.
        """
        late = sorted({(hour + more) % 24 for hour in self.hours if hour in NIGHT for more in range(3)})
        return f"*-*-* {_listed(late, 24)}:00,30,45:00" if late else None


def _listed(values: Sequence[int], all_of_them: int, names: Sequence[str] | None = None) -> str:
    if len(values) == all_of_them:
        return "*"
    return ",".join(names[value] if names else f"{value:02d}" for value in values)


def parse_cron(text: str) -> Cron:
    """Read a cron expression; ValueError names the field, what was found, and what to write instead."""
    words = text.lower().split()
    if text.startswith("@"):
        raise ValueError(f"found {text!r}: write the five fields out, as {EXAMPLE}")
    if len(words) != len(FIELDS):
        raise ValueError(f"found {len(words)} fields in {text!r}, expected five: {EXAMPLE}")
    minutes, hours, days, months, weekdays = (_values(word, field) for word, field in zip(words, FIELDS, strict=True))
    weekdays = tuple(sorted({value % 7 for value in weekdays}))
    if len(days) < 31 and len(weekdays) < 7:
        raise ValueError(
            f"{text!r} names days of the month and of the week: cron takes either, other clocks both: write two entries"
        )
    if not any(day <= LENGTHS[month - 1] for month in months for day in days):
        raise ValueError(f"{text!r} never comes: no such day is in that month")
    return Cron(minutes, hours, days, months, weekdays)


def _values(word: str, field: _Field) -> tuple[int, ...]:
    found: set[int] = set()
    for part in word.split(","):
        found.update(_part(part, field))
    return tuple(sorted(found))


def _part(part: str, field: _Field) -> range:
    match = PART.fullmatch(part)
    if match is None or (match[1] == "*" and match[2]):
        known = "a number, a range as 1-5, a list as 1,3, or a step as */2"
        raise ValueError(f"{field.name}: found {part!r}, expected {known}")
    step = int(match[3]) if match[3] else 1
    if step < 1 or (match[3] and match[1] != "*" and not match[2]):
        raise ValueError(f"{field.name}: found {part!r}: write a step of a range, as {field.least}-{field.most}/2")
    if match[1] == "*":
        most = 6 if field.names.get("sun") == 0 else field.most
        return range(field.least, most + 1, step)
    first = _value(match[1], field)
    last = _value(match[2], field) if match[2] else first
    if last < first:
        raise ValueError(f"{field.name}: found {part!r}, which ends before it begins: write it as two ranges")
    return range(first, last + 1, step)


def _value(word: str, field: _Field) -> int:
    value = int(word) if word.isdigit() else field.names.get(word)
    if value is None or not field.least <= value <= field.most:
        names = f" or {next(iter(field.names))}, …" if field.names else ""
        raise ValueError(f"{field.name}: found {word!r}, expected {field.least} to {field.most}{names}")
    return value
