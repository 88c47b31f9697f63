"""`schedule:` of model.yaml: how many replicas run from when on, by the clock of the hosts."""

import re
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from onprem_llm.spec.cron import Cron, parse_cron
from onprem_llm.spec.fields import Model

ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")


def _at(value: str) -> str:
    parse_cron(value)
    return value


def _zone(value: str) -> str:
    expected = "expected a time zone's name, such as Europe/Berlin or UTC"
    if not ZONE.fullmatch(value):
        raise ValueError(f"found {value!r}, {expected}")
    # Where this machine has no zones at all, the hosts say whether they know it.
    known = Path("/usr/share/zoneinfo").is_dir()
    try:
        ZoneInfo(value)
    except (KeyError, OSError, ValueError):
        if known:
            raise ValueError(f"found {value!r}, {expected}") from None
    return value


TimeZone = Annotated[str, AfterValidator(_zone)]


class ScheduleEntry(Model):
    """From `at` (a cron expression) on, so many replicas run."""

    at: Annotated[str, AfterValidator(_at)]
    replicas: Annotated[int, Field(ge=0, le=64)]

    @property
    def cron(self) -> Cron:
        """`at`, read."""
        return parse_cron(self.at)


Schedule = Annotated[tuple[ScheduleEntry, ...], Field(strict=False)]


def schedule_problem(
    schedule: tuple[ScheduleEntry, ...], replicas: int, timezone: str | None, backend: str, nodes: int | str
) -> str | None:
    """Say what of the fields together makes no sense; None where all is well."""
    if not schedule:
        return "timezone: it is that of schedule, and there is none: leave it out" if timezone else None
    if backend != "compose":
        return (
            f"schedule: found it with backend: {backend}, which scales by load: leave it out, or write backend: compose"
        )
    if nodes not in (1, "auto"):
        return (
            f"schedule: found it with resources.nodes: {nodes}: the hosts of a gang would start and stop their parts "
            "each by its own clock: leave schedule out, or give each replica one host"
        )
    crons = [entry.cron for entry in schedule]
    twice = next((entry.at for at, entry in enumerate(schedule) if entry.cron in crons[:at]), None)
    if twice is not None:
        return f"schedule: two entries have the same times ({twice}): leave one of them out"
    most = max(entry.replicas for entry in schedule)
    if most == 0:
        return "schedule: no entry asks for a replica: one of them must, or nothing would ever serve"
    if replicas > most:
        return (
            f"replicas is {replicas}, and no entry of schedule asks for more than {most}: what runs is what the last "
            "entry says: leave replicas out, or raise an entry"
        )
    return None
