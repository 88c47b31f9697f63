"""The sum for one replica on GPUs of one kind, and whether it fits."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from packaging.version import Version

from onprem_llm.json_values import is_mapping
from onprem_llm.planning.memory.architecture import Architecture, read_architecture
from onprem_llm.planning.memory.config_values import inner
from onprem_llm.planning.memory.kv_cache import Cache, cache_of
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.planning.memory.overhead import CPU, batch_of, driver_reserve, overhead_of
from onprem_llm.planning.memory.settings import Settings, settings_of
from onprem_llm.planning.memory.weights import Weights, stage_layers, weights_of
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.engine_args import normal

# `tight`: what is counted fits, and with what is only estimated it does not.
Answer = Literal["fits", "tight", "no"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and how it is to run; `requests` of the full context at once are to fit."""

    files: ModelFiles
    model: Architecture
    settings: Settings
    weights: Weights
    requests: int = 1

    @property
    def doubt(self) -> str | None:
        """Say why less may be needed than is counted; None where what is counted is needed for sure."""
        if self.settings.not_counted:
            return f"{', '.join(self.settings.not_counted)} not counted"
        if self.files.other_bytes:
            return "known by the size of its files only"
        if self.settings.pipeline > 1 and not self.model.layers:
            return "config.json does not say how many layers it has"
        return None

    @property
    def undivided(self) -> str | None:
        """Say why vLLM refuses the tensor parallel size; None where it takes it."""
        size, heads = self.settings.tensor, self.model.heads
        if self.model.divides(size):
            return None
        return f"tensor_parallel_size {size} does not divide the model's {heads} attention heads"


@dataclass(frozen=True, slots=True)
class GpuKind:
    """A kind of GPU: bytes as nvidia-smi counts them; `free` where something else holds a part.

    `capability`: compute capability, None where it is not known, and for a host's CPUs.
    """

    name: str
    memory: int
    free: int | None = None
    capability: Version | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of the GPU that carries most, in bytes. `libraries`, `activations`, `graphs`, `driver` are estimates."""

    kind: GpuKind
    share: float
    driver: int
    weights: int
    kv_cache: int
    libraries: int
    activations: int
    graphs: int
    cache: Cache
    length: int
    requests: int
    kv_memory: int | None = None  # set aside by name: then the share does not count
    doubt: str | None = None  # why less may be needed than is counted

    @property
    def budget(self) -> int:
        """What the engine may take: its share of what CUDA has, and no more than is free."""
        whole = self.kind.memory - self.driver
        if self.kv_memory is not None:
            return min(whole, self.free)
        return min(round(whole * self.share), self.free)

    @property
    def free(self) -> int:
        """What is free."""
        return self.kind.memory if self.kind.free is None else self.kind.free

    @property
    def held_by_others(self) -> bool:
        """Tell whether others hold so much that the engine cannot have its share: it refuses to start then."""
        return self.kv_memory is None and self.free < self.kind.memory * self.share - self.driver

    @property
    def kv_taken(self) -> int:
        """What the cache takes at least."""
        return self.kv_cache if self.kv_memory is None else self.kv_memory

    @property
    def needed(self) -> int:
        """What the engine needs."""
        return self.weights + self.kv_taken + self.libraries + self.activations + self.graphs

    @property
    def left(self) -> int:
        """What is left; below zero, what is missing."""
        return self.budget - self.needed

    @property
    def kv_room(self) -> int:
        """What is there for the KV cache."""
        if self.kv_memory is not None:
            return self.kv_memory
        return self.budget - self.weights - self.libraries - self.activations - self.graphs

    @property
    def at_once(self) -> float:
        """How many requests of the full context fit at once."""
        one = self.cache.blocks_of(self.length)
        return self.cache.blocks_in(self.kv_room) / one if one else float("inf")

    @property
    def answer(self) -> Answer:
        """Whether it fits. `no` only by what is counted for sure: no estimate of ours refuses what would run."""
        if self.held_by_others:
            return "no"
        limit = self.kind.memory if self.kv_memory is not None else self.kind.memory * self.share
        if self.weights + self.kv_taken > limit or self.too_little_set_aside:
            return "tight" if self.doubt else "no"
        return "fits" if self.left >= 0 else "tight"

    @property
    def too_little_set_aside(self) -> bool:
        """Tell whether what a person has set aside for the cache does not hold one request."""
        return self.kv_memory is not None and self.kv_memory < self.kv_cache

    @property
    def missing(self) -> int:
        """What is missing; 0 where nothing is."""
        return max(0, -self.left, self.kv_cache - self.kv_memory if self.kv_memory is not None else 0)


def subject_of(files: ModelFiles, deployment: Deployment, requests: int = 1) -> Subject:
    """Read what a deployment asks of memory."""
    model = read_architecture(_overridden(files.config, deployment))
    settings = settings_of(deployment, model)
    return Subject(files, model, settings, weights_of(files, model, settings), requests)


def _overridden(config: Mapping[str, object], deployment: Deployment) -> Mapping[str, object]:
    """Return config.json as `hf_overrides` changes it: keys that are mappings on both sides are merged."""
    args = deployment.engine.engine_args
    changed = next((value for flag, value in args.items() if normal(flag) == "hf_overrides"), None)
    if isinstance(changed, str):
        with contextlib.suppress(ValueError, RecursionError):
            changed = json.loads(changed)
    if not is_mapping(changed):
        return config
    merged = {key: {**inner(config, key), **value} if is_mapping(value) else value for key, value in changed.items()}
    return {**config, **merged}


def sum_of(subject: Subject, kind: GpuKind) -> Sum:
    """Return the sum of the fullest GPU of a replica on GPUs of this kind."""
    settings = subject.settings
    sums = [_stage(subject, kind, stage) for stage in range(settings.pipeline)]
    return min(sums, key=lambda one: one.left)


def _stage(subject: Subject, kind: GpuKind, stage: int) -> Sum:
    model, settings = subject.model, subject.settings
    tokens, _ = batch_of(settings, kind.memory, kind.name)
    layers = stage_layers(model.layers, stage, settings.pipeline)
    cache = cache_of(model, settings, layers if model.attends and settings.kv_bytes else (), tokens)
    more = overhead_of(model, settings, kind.memory, kind.name)
    on_cpu = kind.name == CPU
    return Sum(
        kind=kind,
        share=settings.share,
        driver=0 if on_cpu else driver_reserve(kind.memory),
        weights=subject.weights.on_gpu(model, settings, stage),
        kv_cache=subject.requests * cache.request_bytes(settings.length),
        libraries=more.libraries,
        activations=more.activations,
        graphs=0 if on_cpu else more.graphs,
        cache=cache,
        length=settings.length,
        requests=subject.requests,
        kv_memory=settings.kv_memory,
        doubt=subject.doubt,
    )
