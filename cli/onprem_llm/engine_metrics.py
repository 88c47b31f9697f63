"""What vLLM says of itself on /metrics, in Prometheus' text format."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LINE: Final = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{.*\})?\s+(\S+)(?:\s+-?\d+)?$")

RUNNING: Final = "vllm:num_requests_running"
WAITING: Final = "vllm:num_requests_waiting"
# vLLM 0.9 renamed it; in both it is a part of 1.
KV_CACHE: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
PROMPT: Final = "vllm:prompt_tokens_total"
GENERATION: Final = "vllm:generation_tokens_total"
# All that is sent from a host: the whole of /metrics is a hundred times as long.
NAMES: Final = (RUNNING, WAITING, *KV_CACHE, PROMPT, GENERATION)


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """One sample of a replica. Requests now; tokens since its start; `kv_cache` from 0 to 1. None: it does not say."""

    running: int | None
    waiting: int | None
    kv_cache: float | None
    prompt_tokens: float | None
    generation_tokens: float | None


def read_metrics(text: str) -> EngineMetrics:
    """Read vLLM's metrics. Several engines in one process (data parallel) are added up; of their caches the fullest."""
    values: dict[str, list[float]] = {}
    for name, value in samples(text):
        values.setdefault(name, []).append(value)
    caches = next((values[name] for name in KV_CACHE if name in values), None)
    return EngineMetrics(
        running=_whole(values.get(RUNNING)),
        waiting=_whole(values.get(WAITING)),
        kv_cache=max(caches) if caches else None,
        prompt_tokens=_total(values.get(PROMPT)),
        generation_tokens=_total(values.get(GENERATION)),
    )


def samples(text: str) -> Iterator[tuple[str, float]]:
    """Yield name and value of every sample that is a number, whatever its labels."""
    for line in text.splitlines():
        found = LINE.match(line)
        if found:
            try:
                value = float(found[2])
            except ValueError:
                continue
            if math.isfinite(value):
                yield found[1], value


def rate(old: float | None, new: float | None, seconds: float) -> float | None:
    """Return a counter's growth a second; None where it is not known, or was reset because the process is another."""
    if old is None or new is None or new < old or seconds <= 0:
        return None
    return (new - old) / seconds


def _total(values: list[float] | None) -> float | None:
    return sum(values) if values is not None else None


def _whole(values: list[float] | None) -> int | None:
    return round(sum(values)) if values is not None else None
