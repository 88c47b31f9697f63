"""What `top` knows: the last two samples of every host, and the rows that come of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from onprem_llm.engine_metrics import EngineMetrics, rate, read_metrics
from onprem_llm.errors import OnpremError
from onprem_llm.ssh_many import Lines, Piece

# A host that says nothing for so many intervals, and for so many seconds, counts as gone: ssh itself notices later.
SILENT_INTERVALS: Final = 3
SILENT_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True)
class Row:
    """One replica, or (`replica` None) a host of which there is only something to say: memory in MiB, use in percent,
    tokens a second, `kv_cache` from 0 to 1. None: not known.
    """

    host: str
    project: str | None = None
    deployment: str | None = None
    replica: str | None = None
    revision: str | None = None
    gpus: tuple[int, ...] = ()
    memory_used: int | None = None
    memory_total: int | None = None
    gpu_use: float | None = None
    running: int | None = None
    waiting: int | None = None
    generation_rate: float | None = None
    prompt_rate: float | None = None
    kv_cache: float | None = None
    problem: str | None = None


@dataclass
class _Host:
    lines: Lines = field(default_factory=Lines)
    heard: float = 0.0
    samples: int = 0
    gpus: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    replicas: Sequence[Mapping[str, Any]] = ()
    metrics: dict[str, tuple[float, EngineMetrics]] = field(default_factory=dict)
    before: dict[str, tuple[float, EngineMetrics]] = field(default_factory=dict)
    problem: str | None = None
    ended: float | None = None


class Board:
    """Takes what the hosts send; one that fails has a row that says so, and hides no other."""

    def __init__(self, hosts: Sequence[str], interval: float, now: float) -> None:
        """Begin at `now` (seconds on a clock that never goes back), with the hosts in the inventory's order."""
        self._hosts = {name: _Host(heard=now) for name in hosts}
        self._interval = interval

    def take(self, piece: Piece, now: float) -> None:
        """Take in what one host sent, or that its program ended."""
        host = self._hosts[piece.name]
        for line in host.lines.add(piece.data):
            host.heard = now
            _take_sample(host, line)
        if piece.ended:
            problem = said(piece.error) if piece.error else "the sampler ended"
            host.problem = problem.removeprefix(f"{piece.name}: ")
            host.ended = now

    def again(self, name: str, now: float) -> None:
        """Note that a host is asked anew; what it had to say before is no rate's beginning."""
        before = self._hosts[name]
        self._hosts[name] = _Host(heard=now, problem=before.problem, replicas=before.replicas)

    def ended_before(self, moment: float) -> list[str]:
        """Name the hosts whose program ended before `moment`."""
        return [name for name, host in self._hosts.items() if host.ended is not None and host.ended <= moment]

    @property
    def complete(self) -> bool:
        """Tell whether every host has sent two samples, between which there are rates, or cannot."""
        return all(host.samples >= 2 or host.ended is not None for host in self._hosts.values())

    def problems(self, now: float) -> dict[str, str]:
        """Return what is wrong with hosts: not to be reached, silent, no docker."""
        found = {name: self._problem(host, now) for name, host in self._hosts.items()}
        return {name: problem for name, problem in found.items() if problem}

    def _problem(self, host: _Host, now: float) -> str | None:
        silence = now - host.heard
        if host.problem is None and silence > max(SILENT_SECONDS, SILENT_INTERVALS * self._interval):
            return f"no answer for {silence:.0f} s"
        return host.problem

    def rows(self, now: float) -> list[Row]:
        """Return the replicas by deployment and number, then the hosts of which there is only something to say."""
        found, alone = [], []
        for name, host in self._hosts.items():
            problem = self._problem(host, now)
            rows = [_row(name, host, raw, problem) for raw in host.replicas]
            found += rows
            if problem and not rows:
                alone.append(Row(name, problem=problem))
        found.sort(key=lambda row: (row.deployment or "", _number(row.replica), row.replica or "", row.host))
        return [*found, *alone]


def _number(replica: str | None) -> int:
    """Return a replica's number; those on Ray have names."""
    return int(replica) if replica and replica.isdecimal() else 0


def _take_sample(host: _Host, line: bytes) -> None:
    try:
        sample = json.loads(line)
    except ValueError:
        return  # something else on that host writes to our stdout
    host.samples += 1
    host.problem = sample.get("error")
    host.gpus = {gpu["uuid"]: gpu for gpu in sample["gpus"]}
    host.replicas = sample["replicas"]
    host.before = host.metrics
    host.metrics = {
        raw["project"]: (float(raw["at"]), read_metrics(raw["metrics"]))
        for raw in host.replicas
        if raw["metrics"] is not None
    }


def _row(name: str, host: _Host, raw: Mapping[str, Any], problem: str | None) -> Row:
    place = {
        "project": raw["project"],
        "deployment": raw["deployment"],
        "replica": raw["replica"],
        "revision": raw["revision"] or None,
    }
    if problem:
        # Old numbers would look as if they were true now.
        return Row(name, **place, problem=problem)
    gpus = [host.gpus[uuid] for uuid in raw["gpus"].split(",") if uuid in host.gpus]
    uses = [gpu["use"] for gpu in gpus if gpu["use"] is not None]
    at, metrics = host.metrics.get(raw["project"], (0.0, EngineMetrics(None, None, None, None, None)))
    before_at, before = host.before.get(raw["project"], (at, metrics))
    seconds = at - before_at
    return Row(
        name,
        **place,
        gpus=tuple(gpu["index"] for gpu in gpus),
        memory_used=_sum(gpus, "memory_used"),
        memory_total=_sum(gpus, "memory_total"),
        gpu_use=sum(uses) / len(uses) if uses else None,
        running=metrics.running,
        waiting=metrics.waiting,
        generation_rate=rate(before.generation_tokens, metrics.generation_tokens, seconds),
        prompt_rate=rate(before.prompt_tokens, metrics.prompt_tokens, seconds),
        kv_cache=metrics.kv_cache,
        problem=raw["error"] or (None if raw["state"] == "running" else raw["state"]),
    )


def _sum(gpus: Sequence[Mapping[str, Any]], name: str) -> int | None:
    values = [gpu[name] for gpu in gpus if gpu[name] is not None]
    return sum(values) if values else None


def said(error: OnpremError) -> str:
    """Put an error into one line: what ssh said is the reason, where it said something."""
    last = (error.details or "").strip().splitlines()
    return f"{error.message}: {last[-1]}" if last else error.message


def as_document(board: Board, hosts: Sequence[str], now: float) -> dict[str, object]:
    """Return what --json prints for one sample."""
    problems = board.problems(now)
    return {
        "replicas": [asdict(row) for row in board.rows(now) if row.project],
        "hosts": [{"name": name, "answered": name not in problems, "error": problems.get(name)} for name in hosts],
    }
