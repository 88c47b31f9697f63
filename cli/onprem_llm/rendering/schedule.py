"""What a host has of a deployment's schedule: a table of who runs when, and the timer of systemd's that reads it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onprem_llm.spec.deployment import Deployment

TABLE = "table.json"
TIMER = "timer"


@dataclass(frozen=True, slots=True)
class Slot:
    """A replica on this host: the folder of its project, and where the host itself reads its metrics."""

    project: str
    path: str
    metrics: str


def schedule_files(
    deployment: Deployment, order: Sequence[str], slots: Sequence[Slot], gateway: str | None
) -> dict[str, str]:
    """Return name -> text of one host's files. `order`: all replicas, of which the first run; `gateway`: its folder."""
    return {TABLE: _table(deployment, order, slots, gateway), TIMER: _timer(deployment)}


def sums(files: Mapping[str, str]) -> dict[str, str]:
    """Return name -> sha256."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}


def _table(deployment: Deployment, order: Sequence[str], slots: Sequence[Slot], gateway: str | None) -> str:
    value = {
        "deployment": deployment.name,
        "timezone": deployment.timezone,
        "drain": deployment.update.drain_timeout,
        "start": deployment.timeouts.start,
        "entries": [
            {
                "at": entry.at,
                "replicas": entry.replicas,
                **{name: getattr(entry.cron, name) for name in ("minutes", "hours", "days", "months", "weekdays")},
            }
            for entry in deployment.schedule
        ],
        "order": list(order),
        "slots": {slot.project: {"path": slot.path, "metrics": slot.metrics} for slot in slots},
        "gateway": gateway,
    }
    return json.dumps(value, sort_keys=True) + "\n"


def _timer(deployment: Deployment) -> str:
    zone = f" {deployment.timezone}" if deployment.timezone else ""
    crons = [entry.cron for entry in deployment.schedule]
    calendars = [*(one.calendar for one in crons), *sorted({late for one in crons if (late := one.after_gaps)})]
    times = "".join(f"OnCalendar={calendar}{zone}\n" for calendar in calendars)
    return (
        f"[Unit]\nDescription=Replicas of {deployment.name} by the clock\n\n"
        f"[Timer]\n{times}AccuracySec=1s\nUnit=onprem-llm-schedule-{deployment.name}.service\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )
