"""What config.json says of attention: heads, layers, windows. As vLLM reads it (v0.32: model_arch_config_convertor)."""

from collections.abc import Mapping
from dataclasses import dataclass

from onprem_llm.planning.memory.config_values import MOST, factor_of, inner, listed, number, text
from onprem_llm.planning.memory.windows import layer_windows

# Where the part about text stands in models that also see or hear.
TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
# Published files of Gemma 3 leave out what is the default of its class in transformers (Gemma3TextConfig).
CLASS_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "gemma3_text": {
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
        "max_position_embeddings": 131072, "tie_word_embeddings": True, "sliding_window": 4096,
    },
    "gemma2": {"tie_word_embeddings": True},
    "gemma": {"tie_word_embeddings": True},
    "gpt_oss": {"sliding_window": 128},
}  # fmt: skip
# Models whose cache is another one than is counted here, by a key of the text part: then none is counted, since too
# much would refuse what runs.
OTHER_CACHES = {
    "compress_ratios": "compressed attention",
    "index_topk": "sparse attention with an indexer",
    "num_kv_shared_layers": "layers that share a KV cache",
    "global_head_dim": "layers with heads of different sizes",
    "mamba_d_state": "state-space layers",
    "ssm_state_size": "state-space layers",
    "mamba_n_heads": "state-space layers",
    "hybrid_override_pattern": "state-space layers",
    "attn_layer_period": "state-space layers",
    "layers_block_type": "layers of several kinds",
    "attn_type_list": "layers of several kinds",
    "linear_attn_config": "linear attention",
    "block_configs": "layers that differ from each other",
    "attention_chunk_size": "attention in chunks",
    "is_encoder_decoder": "an encoder",
    "cross_attention_layers": "cross attention",
}
# These read a text at once and keep nothing.
ENCODERS = {
    "bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "nomic_bert", "albert", "electra", "mpnet", "new",
    "deberta", "deberta-v2", "gte", "jina_bert", "eurobert",
}  # fmt: skip
LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_sequence_length",
    "max_seq_length", "seq_len",
)  # fmt: skip
DTYPES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model as memory sees it. `latent` is the width of MLA's one vector a token, None for keys and values.

    `windows` has an entry a layer: its sliding window in tokens, 0 for none, or None for a layer without a KV cache.
    `strange` names what has a cache that is not counted here: the KV cache is a lower bound then, or none at all.
    """

    kind: str
    windows: tuple[int | None, ...]
    heads: int
    kv_heads: int
    head_dim: int
    latent: int | None
    hidden: int
    intermediate: int  # of what one token passes through at once: its experts together
    vocabulary: int
    longest: int
    default_length: int
    dtype: str  # float32, float16 or bfloat16, as the files are
    tied: bool
    quantization: str | None
    kv_fp8: bool  # the checkpoint brings scales for an fp8 cache
    strange: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.windows)

    @property
    def attends(self) -> bool:
        """Tell whether enough is known of its attention to count a cache."""
        counted = any(window is not None for window in self.windows)
        return bool(counted and self.heads and (self.head_dim or self.latent))

    def divides(self, size: int) -> bool:
        """Tell whether vLLM takes this tensor parallel size: it must divide the attention heads."""
        return size >= 1 and (not self.heads or self.heads % size == 0)

    def cache_width(self, size: int) -> int:
        """Return how many numbers a token of one layer keeps on a GPU; KV heads fewer than GPUs are repeated."""
        if self.latent is not None:
            return self.latent
        return 2 * max(1, self.kv_heads // size) * self.head_dim


def read_architecture(config: Mapping[str, object]) -> Architecture:
    """Read config.json; what it does not say is 0, so that `attends` is false where nothing can be counted."""
    part = text_part(config)
    heads = number(part, "num_attention_heads", "n_head") or 0
    hidden = number(part, "hidden_size", "n_embd", "d_model") or 0
    latent = number(part, "kv_lora_rank")
    rope = number(part, "qk_rope_head_dim") or 0
    longest, default_length = lengths(part)
    strange, windows = _other_caches(part), layer_windows(part)
    if strange:
        windows = (None,) * len(windows)
    quantized = inner(config, "quantization_config") or inner(part, "quantization_config")
    return Architecture(
        kind=text(part, "model_type") or text(config, "model_type") or "unknown",
        windows=windows,
        heads=heads,
        kv_heads=_kv_heads(part) or heads,
        head_dim=number(part, "head_dim", "hidden_size_per_head") or (hidden // heads if heads else 0),
        latent=latent + rope if latent else None,
        hidden=hidden,
        intermediate=_intermediate(part),
        vocabulary=number(part, "vocab_size") or 0,
        longest=longest,
        default_length=default_length,
        dtype=_dtype(config, part),
        tied=bool(part.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        quantization=text(quantized, "quant_method") or None,
        kv_fp8=_kv_fp8(quantized),
        strange=(*strange, *_linear(part)),
    )


def text_part(config: Mapping[str, object]) -> dict[str, object]:
    """Return the part about text, with the defaults of its class where published files leave them out."""
    name = next((name for name in TEXT_PARTS if inner(config, name)), None)
    part = {**config, **inner(config, name)} if name else dict(config)
    part = {**part, **inner(part, "text_config")} if name == "thinker_config" else part
    kind = text(part, "model_type")
    if name and not inner(config, name).get("model_type"):
        kind = f"{text(config, 'model_type')}_text"
    known = {key: value for key, value in part.items() if value is not None or key == "sliding_window"}
    return {**CLASS_DEFAULTS.get(kind, {}), **known, "model_type": kind}


def lengths(part: Mapping[str, object]) -> tuple[int, int]:
    """Return the longest context in tokens that vLLM lets a person ask for, and the one that it takes unasked."""
    named = [value for name in LENGTHS if (value := number(part, name))]
    longest = min(named, default=2048)
    scaling = inner(part, "rope_scaling") or inner(part, "rope_parameters")
    kind, factor = text(scaling, "rope_type") or text(scaling, "type"), factor_of(scaling, "factor")
    original = number(part, "original_max_position_embeddings")
    if kind == "longrope" and original:
        return longest, original
    if factor is None or text(part, "model_type").startswith("gemma3"):
        return longest, longest
    if kind in {"yarn", "deepseek_yarn"}:
        # Newer vLLM takes the length as already stretched, older ones stretch it.
        before = number(scaling, "original_max_position_embeddings") or 0
        return (stretched := max(longest, _stretched(before, factor))), stretched
    if kind in {"su", "longrope", "llama3", "default", "deepseek_llama_scaling"}:
        return longest, longest
    return (stretched := _stretched(longest, factor)), stretched


def _stretched(length: int, factor: float) -> int:
    return max(1, min(int(length * factor), MOST))


def _intermediate(part: Mapping[str, object]) -> int:
    dense = number(part, "intermediate_size", "n_inner", "ffn_dim") or 4 * (number(part, "hidden_size", "n_embd") or 0)
    chosen = number(part, "num_experts_per_tok", "num_experts_per_token", "moe_topk")
    if chosen is None:
        return dense
    expert = number(part, "moe_intermediate_size") or dense
    return max(dense if number(part, "moe_intermediate_size") else 0, chosen * expert)


def _dtype(config: Mapping[str, object], part: Mapping[str, object]) -> str:
    names = ("dtype", "torch_dtype")
    found = [text(source, name) for source in (config, part) for name in names] + [
        text(inner(config, "vision_config"), name) for name in names
    ]
    return next((name for name in found if name in DTYPES), "bfloat16")


def _kv_fp8(quantized: Mapping[str, object]) -> bool:
    scheme = inner(quantized, "kv_cache_scheme")
    modelopt = str(quantized.get("kv_cache_quant_algo") or inner(quantized, "quantization").get("kv_cache_quant_algo"))
    return scheme.get("num_bits") == 8 or modelopt.upper() == "FP8"


def _kv_heads(part: Mapping[str, object]) -> int | None:
    # Falcon's first and StarCoder have one head for all, and say the attention heads' number beside it.
    if part.get("multi_query") and not part.get("new_decoder_architecture"):
        return 1
    return number(part, "n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num")


def _other_caches(part: Mapping[str, object]) -> tuple[str, ...]:
    if text(part, "model_type") in ENCODERS:
        return ("an encoder keeps none",)
    return tuple(dict.fromkeys(what for key, what in OTHER_CACHES.items() if part.get(key)))


def _linear(part: Mapping[str, object]) -> tuple[str, ...]:
    kinds = {str(kind) for kind in listed(part, "layer_types")} - {"full_attention", "sliding_attention"}
    linear = ("linear attention",) if number(part, "full_attention_interval") and not kinds else ()
    return (*(f"layers of kind {kind}" for kind in sorted(kinds)), *linear)
