"""Whether a GPU computes in the numbers that a model and its flags ask for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from packaging.version import Version

from onprem_llm.planning.compatibility.machines import Kind
from onprem_llm.planning.compatibility.table import Table
from onprem_llm.planning.memory.config_values import inner, number, text
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.spec.engine_args import normal

BFLOAT16 = "bfloat16"
FP8_METHODS = {"fp8", "fbgemm_fp8"}
FP8_CACHES = {"fp8", "fp8_e4m3"}


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is asked for: `dtype` None is vLLM's auto, which takes the model's own."""

    dtype: str | None = None
    model_dtype: str | None = None
    quantization: str | None = None
    cache: str | None = None  # kv_cache_dtype, as engine_args say it
    latent: bool = False  # MLA


@dataclass(frozen=True, slots=True)
class NumberFinding:
    """One sentence, and what to do where it refuses."""

    text: str
    remedy: str | None = None

    @property
    def refused(self) -> bool:
        """Tell whether the engine would not start."""
        return self.remedy is not None


def numbers_of(args: Mapping[str, object], files: ModelFiles | None) -> Numbers:
    """Return what engine_args and the model's config.json ask for together; None: it is not here."""
    said = {normal(flag): value for flag, value in args.items()}
    config = files.config if files else {}
    part = inner(config, "text_config")  # where a multimodal model says it
    packed = inner(config, "quantization_config") or inner(part, "quantization_config")
    dtypes = (text(one, name) for one in (config, part) for name in ("dtype", "torch_dtype"))
    return Numbers(
        dtype if (dtype := text(said, "dtype")) not in {"", "auto"} else None,
        next((dtype for dtype in dtypes if dtype), None),
        text(said, "quantization") or text(packed, "quant_method").lower() or None,
        text(said, "kv_cache_dtype") or None,
        number(part or config, "kv_lora_rank") is not None,
    )


def knows_method(numbers: Numbers, release: Version, known: Table) -> bool:
    """Tell whether a release is known to have the method that is asked for; one of no row counts as had."""
    rows = [row for row in known.quantization if row.method == numbers.quantization]
    return not rows or any(row.holds_for(release) for row in rows)


def has_fp8_cache(
    attention: Literal["keys", "latent", "cpu"], capability: Version | None, release: Version | None, known: Table
) -> bool:
    """Tell whether a release is known to keep keys and values in fp8 there; release None: one that is not known."""
    rows = (row for row in known.fp8_cache if row.attention == attention and row.runs_on(capability))
    return any(release is None or row.since <= release for row in rows)


def number_findings(kind: Kind, numbers: Numbers, release: Version | None, known: Table) -> Iterator[NumberFinding]:
    """Yield what one kind of GPU cannot do, under a release of vLLM; None for one that the table does not know."""
    if kind.capability is None:
        return
    yield from _bfloat16(kind, numbers, release, known)
    if numbers.quantization:
        yield from _quantization(kind, numbers.quantization, release, known)
    if numbers.cache in FP8_CACHES and release is not None:
        yield from _cache(kind, numbers, release, known)


def _bfloat16(kind: Kind, numbers: Numbers, release: Version | None, known: Table) -> Iterator[NumberFinding]:
    least = known.bfloat16.capability
    if kind.capability is None or kind.capability >= least or BFLOAT16 not in {numbers.dtype, numbers.model_dtype}:
        return
    remedy = "set `dtype: half` in engine.engine_args"
    has_not = f"{kind} has no bfloat16, which begins at {least}"
    if numbers.dtype == BFLOAT16:
        yield NumberFinding(f"{has_not}, and engine_args ask for it (dtype: bfloat16)", remedy)
    elif numbers.dtype is None and release is not None:
        if release >= known.bfloat16.auto_falls_back_since:
            yield NumberFinding(f"{has_not}, and the model is in it: v{release} computes in float16 there")
        else:
            yield NumberFinding(f"{has_not}, and v{release} takes the model's, which is bfloat16", remedy)


def _cache(kind: Kind, numbers: Numbers, release: Version, known: Table) -> Iterator[NumberFinding]:
    """Warn, since a backend that is named may have what those that are chosen have not."""
    attention: Literal["keys", "latent"] = "latent" if numbers.latent else "keys"
    if kind.capability is not None and not has_fp8_cache(attention, kind.capability, release, known):
        yield NumberFinding(
            f"{kind} is not known to store keys and values in fp8 under v{release} (kv_cache_dtype: {numbers.cache}): "
            "the engine may not start"
        )


def _quantization(kind: Kind, method: str, release: Version | None, known: Table) -> Iterator[NumberFinding]:
    rows = [row for row in known.quantization if row.method == method and release and row.holds_for(release)]
    if kind.capability is None or not rows:
        return
    if kind.capability < rows[0].capability:
        text = f"{kind} cannot run quantization {method} under v{release}, which begins at {rows[0].capability}"
        yield NumberFinding(text, "take the model in another format")
    elif method in FP8_METHODS and kind.capability < known.fp8.capability:
        yield NumberFinding(
            f"{kind} has no arithmetic in fp8, which begins at {known.fp8.capability}: weights are unpacked as they "
            "are used (Marlin), which saves memory, not time"
        )
