"""Which layers of a model look back only so far: as config.json says, or as the class of the model does."""

from collections.abc import Mapping

from onprem_llm.planning.memory.config_values import MOST_LAYERS, listed, number, text

# A layer that keeps all tokens.
FULL = 0
# Of so many layers the last keeps all tokens, where config.json names no pattern (transformers' classes).
PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gpt_oss": 2, "cohere2": 4}
# These have their window in all layers.
EVERY_LAYER = {"mistral", "mixtral", "phi3", "phimoe", "starcoder2"}


def layer_windows(part: Mapping[str, object]) -> tuple[int | None, ...]:
    """Return the window of each layer in tokens, FULL where it has none, None where it keeps no keys and values."""
    count = number(part, "num_hidden_layers", "n_layer", "num_layers", most=MOST_LAYERS) or 0
    window, kind = number(part, "sliding_window"), text(part, "model_type")
    kinds = [str(one) for one in listed(part, "layer_types")]
    if kinds:
        return tuple(_of_kind(one, window) for one in kinds[:count])
    interval = number(part, "full_attention_interval")
    if interval is not None:
        return tuple(None if (index + 1) % interval else FULL for index in range(count))
    if window is None:
        return (FULL,) * count
    if kind in EVERY_LAYER:
        return (window,) * count
    pattern = number(part, "sliding_window_pattern", "_sliding_window_pattern") or PATTERNS.get(kind)
    if pattern is not None:
        return tuple(window if (index + 1) % pattern else FULL for index in range(count))
    if part.get("use_sliding_window"):
        first = number(part, "max_window_layers") or 0
        return tuple(window if index >= first else FULL for index in range(count))
    return (FULL,) * count


def _of_kind(kind: str, window: int | None) -> int | None:
    if kind == "sliding_attention":
        return window or FULL
    return FULL if kind == "full_attention" else None
