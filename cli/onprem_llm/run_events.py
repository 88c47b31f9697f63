"""What a run's events say: which hosts took part, what they returned, what failed. Knows no ansible_runner."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onprem_llm.output import Progress

RESULT_KEY = "onprem_llm"
# Messages that say nothing without what the program wrote.
HOLLOW = ("MODULE FAILURE", "Module result deserialization failed", "Shared connection to")
# What Ansible puts before the reason; the host and the task stand beside the message anyway.
WRAPPING = re.compile(
    r"^(Task failed: )?((Action failed|Failed to connect to the host via ssh|Data could not be sent to remote host .*?"
    r"Make sure this host can be reached over ssh): )?(Warning: Permanently added.*\n)?",
)
# What ansible itself says outside of tasks: warnings, and the reason why a run never began.
TALK = ("verbose", "error", "warning", "system_warning", "debug")


@dataclass(frozen=True)
class HostFailure:
    """Why a host dropped out: the task it was at and the message; `unreachable` when it could not be asked at all."""

    host: str
    task: str
    message: str
    unreachable: bool


@dataclass(frozen=True)
class RunResult:
    """What came of a run."""

    hosts: tuple[str, ...]
    """All hosts that took part, failed and unreachable ones too, in the inventory's order."""
    returned: Mapping[str, dict[str, Any]]
    """Host to what its tasks put under `onprem_llm`; see `merge`."""
    changed: Mapping[str, int]
    """Host to the number of changed tasks."""
    failures: tuple[HostFailure, ...]
    """The last failure of each host that dropped out."""


@dataclass
class Collector:
    """Reads one event after the other, and tells `progress` what a person wants to see of it."""

    progress: Progress | None = None
    order: dict[str, None] = field(default_factory=dict)
    returned: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, HostFailure] = field(default_factory=dict)
    stats: Mapping[str, Mapping[str, int]] | None = None
    talk: list[str] = field(default_factory=list)

    def __call__(self, event: Mapping[str, Any]) -> bool:
        """Take one event of ansible_runner. False: it need not be written to disk."""
        kind = event.get("event", "")
        data = event.get("event_data", {})
        if kind in TALK:
            self.talk.append(event.get("stdout", ""))
        elif kind == "runner_on_start":
            self._started(data)
        elif kind in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
            self._ended(kind, data)
        elif kind == "playbook_on_stats":
            self.stats = data
            self._show_ends()
        return False

    def result(self) -> RunResult:
        """Say what came of the run; a failure that a rescue block mended is none."""
        bad = {**self._count("failures"), **self._count("dark")}
        failures = tuple(self.failed[host] for host in self.order if host in bad and host in self.failed)
        return RunResult(
            hosts=tuple(self.order),
            returned={host: self.returned[host] for host in self.order if host in self.returned},
            changed=dict(self._count("changed")),
            failures=failures,
        )

    @property
    def said(self) -> str:
        """Return what ansible itself said outside of tasks."""
        return "\n".join(line for line in self.talk if line.strip())

    def _count(self, name: str) -> Mapping[str, int]:
        return (self.stats or {}).get(name) or {}

    def _started(self, data: Mapping[str, Any]) -> None:
        host = data["host"]
        self.order.setdefault(host)
        if self.progress:
            self.progress.host(host, "running", data.get("task", ""))

    def _ended(self, kind: str, data: Mapping[str, Any]) -> None:
        host, result = data["host"], data.get("res") or {}
        self.order.setdefault(host)
        for part in (result, *_items(result)):
            if isinstance(part.get(RESULT_KEY), dict):
                merge(self.returned.setdefault(host, {}), part[RESULT_KEY])
        if kind != "runner_on_ok" and not data.get("ignore_errors"):
            unreachable = kind == "runner_on_unreachable"
            self.failed[host] = HostFailure(host, data.get("task", ""), message_of(result), unreachable)

    def _show_ends(self) -> None:
        if not self.progress:
            return
        failures = {failure.host: failure for failure in self.result().failures}
        for host in self.order:
            failure = failures.get(host)
            if failure:
                state = "unreachable" if failure.unreachable else "failed"
                self.progress.host(host, state, first_line(failure.message))
            else:
                self.progress.host(host, "changed" if self._count("changed").get(host) else "ok")


def merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Add one task's `onprem_llm` to a host's: by top key, lists are joined, mappings updated, the rest replaced."""
    for key, value in new.items():
        old = into.get(key)
        if isinstance(old, list) and isinstance(value, list):
            into[key] = old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            into[key] = {**old, **value}
        else:
            into[key] = value


def first_line(text: str) -> str:
    """Return the first line that says something; ssh draws frames around its warnings."""
    lines = (line.strip(" @") for line in text.splitlines())
    return next((line for line in lines if line), "")


def message_of(result: Mapping[str, Any]) -> str:
    """Say in words why a task failed: its message, and where that is hollow, what the program behind it wrote."""
    failed_items = [item for item in _items(result) if item.get("failed") or item.get("unreachable")]
    if failed_items:
        return message_of(failed_items[0])
    if "censored" in result:
        return "the task handles a secret, so its output is hidden"
    parts = [WRAPPING.sub("", str(result.get("msg") or "").strip())]
    if not parts[0] or parts[0] == "non-zero return code" or parts[0].startswith(HOLLOW):
        texts = [str(result.get(name) or "").strip() for name in ("stderr", "module_stderr", "stdout", "module_stdout")]
        parts = [next(("\n".join(text.splitlines()[-12:]) for text in texts if text), parts[0])]
    return "\n".join(part for part in parts if part) or "no message"


def _items(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    items = result.get("results")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
