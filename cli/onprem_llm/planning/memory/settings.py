"""What engine_args say about memory, with vLLM's defaults where they say nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import Version

from onprem_llm.planning.memory.architecture import DTYPES, Architecture
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.engine_args import normal

GIB = 1024**3
# Nobody has so many GPUs, nor so many bytes: a number beyond is not understood.
MOST_WAYS, MOST = 1024, 10**15
# Bytes of one number in the KV cache.
KV_DTYPES = {
    "float16": 2.0, "half": 2.0, "bfloat16": 2.0, "float32": 4.0, "float": 4.0,
    "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0, "fp8_inc": 1.0,
}  # fmt: skip
# vllm/config/cache.py: 0.92 in v0.25 and v0.32, 0.9 for most of its history before.
SHARE, OLD_SHARE, FIRST_WITH_LARGER_SHARE = 0.92, 0.9, (0, 20)
# v0.21 on: what CUDA graphs take is counted within the share (vllm#30515).
FIRST_WITH_GRAPHS = (0, 21)
# Before, layers with a window kept all tokens: the hybrid KV cache manager came with v0.10.
FIRST_HYBRID = (0, 10)
# From then on a batch is scheduled while the one before is computed; not on CPUs (seen with v0.32).
FIRST_ASYNCHRONOUS = (0, 14)
# `max_model_len: auto` takes the longest context that fits, and this is the least that is of use.
SHORTEST = 2048
BLOCK, MLA_BLOCK, CPU_BLOCK = 16, 64, 128
_SUFFIX = {"k": 1000, "m": 10**6, "g": 10**9, "K": 1024, "M": 1024**2, "G": GIB}


@dataclass(frozen=True, slots=True)
class Settings:
    """What one replica's engine is told; `length` in tokens, `kv_bytes` None where the KV dtype is not known here."""

    tensor: int
    pipeline: int
    data: int
    context: int  # GPUs of a tensor parallel group that share a request's tokens among them
    share: float
    length: int
    batched_tokens: int | None  # None: vLLM chooses by the GPU
    sequences: int | None
    block: int
    dtype: str  # float32, float16, bfloat16
    kv_dtype: str
    kv_bytes: float | None
    quantization: str | None  # made while loading, of weights that are not quantised
    eager: bool
    hybrid: bool
    batches: int  # that are in flight at once
    graphs_counted: bool
    offloaded: int  # bytes of weights on each GPU that stay in the host's memory
    kv_memory: int | None  # bytes that a person has set aside for the cache on a GPU
    not_counted: tuple[str, ...] = ()  # flags by which less may be needed than is counted here
    release: Version | None = None  # None: the image's name does not say it

    @property
    def gpus(self) -> int:
        """How many GPUs a replica takes."""
        return self.tensor * self.pipeline * self.data


def release_of(image: str) -> Version | None:
    """Return the release of a vLLM image as its tag says it; None where it does not."""
    found = re.search(r"vllm[^:@]*:v?(\d{1,6}\.\d{1,6}(?:\.\d{1,6})?(?:\.post\d{1,6})?)", image)
    return Version(found[1]) if found else None


def settings_of(deployment: Deployment, model: Architecture) -> Settings:
    """Read the engine's flags; a value that is not understood counts as not set."""
    args = {normal(flag): value for flag, value in deployment.engine.engine_args.items()}
    release = release_of(deployment.engine.image)
    version = (release.major, release.minor) if release else (1, 0)
    dtype = _dtype(args.get("dtype"), model)
    kv_dtype, kv_bytes = _kv_dtype(str(args.get("kv_cache_dtype") or "auto"), model, dtype)
    quantization = args.get("quantization")
    pipeline = _ways(args, "pipeline_parallel_size")
    return Settings(
        tensor=_ways(args, "tensor_parallel_size"),
        pipeline=pipeline,
        data=_ways(args, "data_parallel_size"),
        context=_ways(args, "decode_context_parallel_size"),
        share=_share(args.get("gpu_memory_utilization"), version),
        length=_length(args.get("max_model_len"), model),
        batched_tokens=_count(args, "max_num_batched_tokens"),
        sequences=_count(args, "max_num_seqs"),
        block=_count(args, "block_size") or _block(deployment, model),
        dtype=dtype,
        kv_dtype=kv_dtype,
        kv_bytes=kv_bytes,
        quantization=quantization if isinstance(quantization, str) and not model.quantization else None,
        eager=args.get("enforce_eager") is True,
        hybrid=version >= FIRST_HYBRID and args.get("disable_hybrid_kv_cache_manager") is not True,
        batches=pipeline + (version >= FIRST_ASYNCHRONOUS and deployment.resources.gpus != 0),
        graphs_counted=version >= FIRST_WITH_GRAPHS,
        offloaded=_offloaded(args.get("cpu_offload_gb")),
        kv_memory=_kv_memory(deployment, args),
        not_counted=_not_counted(args),
        release=release,
    )


def size_of(value: object) -> int | None:
    """Read a number as vLLM's command line does: 8192, 32k (thousands), 32K (1024s), 1.5g; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 < value <= MOST else None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG]?)", str(value).strip()) if isinstance(value, str) else None
    size = float(found[1]) * _SUFFIX.get(found[2], 1) if found else 0.0
    return int(size) or None if size <= MOST else None


def _count(args: Mapping[str, object], name: str) -> int | None:
    return size_of(args.get(name))


def _ways(args: Mapping[str, object], name: str) -> int:
    size = _count(args, name) or 1
    return size if size <= MOST_WAYS else 1


def _real(value: object) -> float | None:
    """Read a number that need not be whole, as a number or as text; None for anything else, NaN and infinity too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if 0 <= found <= MOST else None


def _not_counted(args: Mapping[str, object]) -> tuple[str, ...]:
    """Name the flags that may make less of what a GPU holds, and are not understood here."""
    said = {name: value for name, value in args.items() if value is not None and value is not False}
    read = {name for name in ("cpu_offload_gb", "gpu_memory_utilization") if _real(said.get(name)) is not None}
    odd = [name for name in said if ("offload" in name or name == "gpu_memory_utilization") and name not in read]
    # A replica takes more GPUs then than is counted here, and spreads experts over them.
    shared = "prefill_context_parallel_size"
    return (*odd, *((shared,) if said.get(shared) not in (None, 1, "1") else ()))


def _length(value: object, model: Architecture) -> int:
    if value in (-1, "-1", "auto"):
        return min(SHORTEST, model.default_length)
    return size_of(value) or model.default_length


def _offloaded(value: object) -> int:
    return int((_real(value) or 0) * GIB)


def _share(value: object, version: tuple[int, int]) -> float:
    said = _real(value)
    if said is not None and 0 < said <= 1:
        return said
    return SHARE if version >= FIRST_WITH_LARGER_SHARE else OLD_SHARE


def _dtype(value: object, model: Architecture) -> str:
    named = {"half": "float16", "float": "float32"}.get(str(value), str(value))
    if named in DTYPES:
        return named
    # `auto` never serves in 32 bits.
    return "bfloat16" if model.dtype == "float32" else model.dtype


def _kv_dtype(named: str, model: Architecture, dtype: str) -> tuple[str, float | None]:
    if named != "auto":
        return named, KV_DTYPES.get(named)
    return ("fp8", 1.0) if model.kv_fp8 else (dtype, KV_DTYPES[dtype])


def _block(deployment: Deployment, model: Architecture) -> int:
    if deployment.resources.gpus == 0:
        return BLOCK if model.latent else CPU_BLOCK
    return MLA_BLOCK if model.latent else BLOCK


def _kv_memory(deployment: Deployment, args: Mapping[str, object]) -> int | None:
    if deployment.resources.gpus == 0:
        space = _real(deployment.literal_env.get("VLLM_CPU_KVCACHE_SPACE"))
        return int(space * GIB) if space else None
    return _count(args, "kv_cache_memory_bytes") or _count(args, "kv_cache_memory")
