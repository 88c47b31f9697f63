"""What makes a model fit: the changes that disturb least come first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from onprem_llm.planning.compatibility.machines import Kind
from onprem_llm.planning.compatibility.numbers import Numbers, has_fp8_cache, number_findings
from onprem_llm.planning.compatibility.table import table
from onprem_llm.planning.memory.judge import GpuKind, Subject, sum_of
from onprem_llm.planning.memory.overhead import CPU
from onprem_llm.planning.memory.settings import SHORTEST
from onprem_llm.planning.memory.weights import FOUR_BITS, weights_of

# A context is cut to a multiple of this.
STEP = 1024
SIZES = (2, 4, 8)
MOST_STAGES = 8
FP8 = "fp8"


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change that makes it fit: what it is, and what it sets in engine_args (and resources.gpus)."""

    what: str
    args: Mapping[str, object]
    gpus: int | None = None
    left: int = 0  # bytes left on the fullest GPU then
    other_weights: int | None = None  # bytes of weights on a GPU: another variant of the model

    @property
    def edit(self) -> str:
        """Write it as a person edits model.yaml."""
        parts = [f"engine_args.{name}: {value}" for name, value in self.args.items()]
        parts += [f"resources.gpus: {self.gpus}"] if self.gpus is not None else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class _Try:
    what: str
    subject: Subject
    args: Mapping[str, object] = field(default_factory=dict)
    gpus: int | None = None


def remedies(subject: Subject, kind: GpuKind, most_gpus: int) -> tuple[Remedy, ...]:
    """Return the changes that make it fit on up to `most_gpus` GPUs of a host, the smallest first.

    Where no single one is enough, two together.
    """
    single = [*_tries(subject, kind, most_gpus)]
    found = [remedy for one in single if (remedy := _remedy(one, kind))]
    if not any(remedy.gpus for remedy in found):
        found += [remedy for one in _stages(subject, most_gpus) if (remedy := _remedy(one, kind))][:1]
    if not found:
        pairs = (second for first in single for second in _shorter(first, kind))
        found = [remedy for one in pairs if (remedy := _remedy(one, kind))][:1]
    return (*found, *_variants(subject, kind, last=not found))


def _tries(subject: Subject, kind: GpuKind, most_gpus: int) -> Iterator[_Try]:
    settings, model = subject.settings, subject.model
    yield from _smaller_share(subject, kind)
    yield from _shorter(_Try("", subject), kind)
    if (settings.kv_bytes or 0) > 1 and subject.model.attends and _stores_fp8(subject, kind):
        smaller = replace(subject, settings=replace(settings, kv_bytes=1.0, kv_dtype=FP8))
        yield _Try("an fp8 KV cache", smaller, {"kv_cache_dtype": FP8})
    for size in SIZES:
        gpus = size * settings.pipeline * settings.data
        if size > settings.tensor and model.divides(size) and gpus <= most_gpus:
            wider = replace(subject, settings=replace(settings, tensor=size))
            yield _Try(f"tensor parallel over {size} GPUs", wider, {"tensor_parallel_size": size}, gpus)


def _stages(subject: Subject, most_gpus: int) -> Iterator[_Try]:
    """Lay layers over more GPUs: for a number of them that does not divide the heads. It wants more time a token."""
    settings, layers = subject.settings, subject.model.layers
    for size in range(settings.pipeline + 1, MOST_STAGES + 1):
        gpus = settings.tensor * size * settings.data
        if gpus <= most_gpus and size <= layers:
            batches = settings.batches + size - settings.pipeline
            longer = replace(subject, settings=replace(settings, pipeline=size, batches=batches))
            yield _Try(f"pipeline parallel over {size} stages", longer, {"pipeline_parallel_size": size}, gpus)


def _stores_fp8(subject: Subject, kind: GpuKind) -> bool:
    """Tell whether this release is known to keep the cache in fp8 on such a GPU: what is proposed must run."""
    release, latent = subject.settings.release, subject.model.latent is not None
    if kind.name == CPU:
        return not latent and has_fp8_cache("cpu", None, release, table())
    found = kind.capability
    return found is not None and has_fp8_cache("latent" if latent else "keys", found, release, table())


def _smaller_share(subject: Subject, kind: GpuKind) -> Iterator[_Try]:
    """The engine refuses to start where its share is more than what others have left free."""
    if not sum_of(subject, kind).held_by_others:
        return
    share = int(100 * (kind.free or 0) / kind.memory) / 100
    if share > 0:
        smaller = replace(subject, settings=replace(subject.settings, share=share))
        yield _Try("a smaller share of the GPU", smaller, {"gpu_memory_utilization": share})


def _shorter(one: _Try, kind: GpuKind) -> Iterator[_Try]:
    subject = one.subject
    now = sum_of(subject, kind)
    room = now.kv_room
    longest = now.cache.longest(room, subject.settings.length, subject.requests) if now.cache.groups else 0
    length = longest - longest % STEP
    if SHORTEST <= length < subject.settings.length:
        shorter = replace(subject, settings=replace(subject.settings, length=length))
        what = f"a context of {length} tokens instead of {subject.settings.length}"
        args = {**one.args, "max_model_len": length}
        yield _Try(f"{one.what} and {what}" if one.what else what, shorter, args, one.gpus)


def _remedy(one: _Try, kind: GpuKind) -> Remedy | None:
    total = sum_of(one.subject, kind)
    return Remedy(one.what, one.args, one.gpus, total.left) if total.answer == "fits" else None


def _variants(subject: Subject, kind: GpuKind, *, last: bool) -> Iterator[Remedy]:
    """Say what 8-bit or 4-bit weights would make of a model that is not quantised: the first that fits.

    Where neither does, and nothing else either (`last`), with a shorter context.
    """
    if subject.model.quantization or subject.settings.quantization or not subject.files.tensors:
        return
    kinds = [("8-bit weights (fp8)", FP8)] if _runs(FP8, subject, kind) else []
    tries = [_quantised(subject, *one) for one in (*kinds, ("4-bit weights (awq, gptq)", FOUR_BITS))]
    shorter = [second for first in tries for second in _shorter(first, kind)] if last else []
    for one in (*tries, *shorter):
        total = sum_of(one.subject, kind)
        if total.answer == "fits":
            yield Remedy(one.what, one.args, None, total.left, total.weights)
            return


def _runs(method: str, subject: Subject, kind: GpuKind) -> bool:
    """Tell whether nothing is known against weights of this method on such a GPU."""
    asked, gpu = Numbers(quantization=method), Kind(kind.name, kind.capability, data_center=False)
    return not any(one.refused for one in number_findings(gpu, asked, subject.settings.release, table()))


def _quantised(subject: Subject, what: str, made: str) -> _Try:
    settings = replace(subject.settings, quantization=made)
    weights = weights_of(subject.files, subject.model, settings)
    return _Try(f"a variant of the model with {what}", replace(subject, settings=settings, weights=weights))
