"""Reading config.json, in which anything may be missing, null or of another type."""

from collections.abc import Mapping, Sequence

from onprem_llm.json_values import is_list, is_mapping


def number(config: Mapping[str, object], *names: str) -> int | None:
    """Return the first of these keys that is a positive whole number."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


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
