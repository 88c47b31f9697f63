"""A sum in words: each term with its bytes, what is counted apart from what is estimated."""

from collections.abc import Iterator

from onprem_llm.output import human_bytes
from onprem_llm.planning.memory.changes import Remedy
from onprem_llm.planning.memory.judge import Subject, Sum
from onprem_llm.planning.memory.overhead import CPU


def sum_lines(total: Sum, subject: Subject) -> Iterator[str]:
    """Yield the lines of a sum: on each GPU, what the engine may take and what it needs."""
    rows = list(_rows(total, subject))
    width = max(len(what) for what, _, _ in rows)
    for what, size, more in rows:
        yield f"  {what.ljust(width)}  {_bytes(size).rjust(19)}  {human_bytes(abs(size)).rjust(9)}  {more}".rstrip()


def _bytes(size: int) -> str:
    return f"{size:,}".replace(",", " ")


def _rows(total: Sum, subject: Subject) -> Iterator[tuple[str, int, str]]:
    settings, held = subject.settings, total.kind.free is not None
    on_cpu = total.kind.name == CPU
    setting = "VLLM_CPU_KVCACHE_SPACE" if on_cpu else "kv_cache_memory_bytes"
    limit = f"{total.share:g} of it is the engine's" if total.kv_memory is None else f"{setting} is set"
    driver = f", about {human_bytes(total.driver)} are the driver's" if total.driver else ""
    free = f", {human_bytes(total.free)} free" if held else ""
    yield "memory of the host" if on_cpu else f"a GPU ({total.kind.name})", total.kind.memory, f"{limit}{driver}{free}"
    yield "the engine may take", total.budget, ""
    yield "weights", -total.weights, _weights(subject)
    yield "KV cache", -total.kv_taken, _cache(total, subject)
    yield "activations", -total.activations, "estimated: one batch at start"
    yield "libraries" if on_cpu else "CUDA, libraries", -total.libraries, "estimated"
    if total.graphs:
        yield "CUDA graphs", -total.graphs, "estimated; none with enforce_eager"
    room = f"{total.at_once:.1f} requests of {settings.length} tokens at once" if total.left >= 0 else ""
    yield ("left" if total.left >= 0 else "missing"), total.left, room if total.cache.groups else ""


def _weights(subject: Subject) -> str:
    settings = subject.settings
    ways = {"tensor": settings.tensor, "pipeline": settings.pipeline}
    over = " and ".join(f"{what} parallel {size}" for what, size in ways.items() if size > 1)
    kind = subject.model.quantization or settings.quantization or settings.dtype
    doubt = f"; {subject.doubt}" if subject.doubt else ""
    return f"of {human_bytes(subject.weights.bytes)}{f' over {over}' if over else ''}, {kind}{doubt}"


def _cache(total: Sum, subject: Subject) -> str:
    cache, settings = total.cache, subject.settings
    if not cache.groups:
        if settings.kv_bytes is None:
            return f"not counted: kv_cache_dtype {settings.kv_dtype}"
        return f"not counted: {', '.join(subject.model.strange) or 'config.json does not say enough'}"
    windowed = f" ({cache.windowed} of {cache.kept + cache.windowed} layers keep a window)" if cache.windowed else ""
    many = f"{total.requests} x " if total.requests > 1 else ""
    least = f"; at least, for it has {', '.join(subject.model.strange)}" if subject.model.strange else ""
    return f"{many}{total.length} tokens, {cache.token_bytes} bytes each, {settings.kv_dtype}{windowed}{least}"


def remedy_line(remedy: Remedy) -> str:
    """Say one change as a person can make it."""
    other = remedy.other_weights
    weights = "" if other is None else f"{human_bytes(other)} of weights on a GPU, "
    edit = f" ({remedy.edit})" if remedy.edit else ""
    return f"{remedy.what}{edit}: {weights}{human_bytes(remedy.left)} left"
