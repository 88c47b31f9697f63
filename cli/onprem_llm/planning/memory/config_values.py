"""Reading config.json, in which anything may be missing, null, of another type or beyond all measure."""

from collections.abc import Mapping, Sequence

from onprem_llm.json_values import is_list, is_mapping

# No model has more of anything, nor so many layers; what is beyond counts as not said.
MOST, MOST_LAYERS = 10**12, 10**4


def number(config: Mapping[str, object], *names: str, most: int = MOST) -> int | None:
    """Return the first of these keys that is a positive whole number, `most` at most."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most:
            return value
    return None


def factor_of(config: Mapping[str, object], name: str) -> float | None:
    """Return a key that is a positive number, whole or not; None for anything else, NaN and infinity too."""
    value = config.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST else None


def text(config: Mapping[str, object], name: str) -> str:
    """Return a key that is text, else nothing."""
    value = config.get(name)
    return value if isinstance(value, str) else ""


def inner(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a key that is a mapping, else an empty one."""
    value = config.get(name)
    return value if is_mapping(value) else {}


def listed(config: Mapping[str, object], name: str) -> Sequence[object]:
    """Return a key that is a list, else an empty one."""
    value = config.get(name)
    return value if is_list(value) else ()
