"""Values out of the probe's JSON: what is missing or of another kind is None or empty, never an exception."""

from collections.abc import Mapping
from datetime import UTC, datetime

from onprem_llm.json_values import is_list, is_mapping


def mapping(value: object) -> Mapping[str, object]:
    """Return a mapping, empty where this is none."""
    return value if is_mapping(value) else {}


def mappings(value: object) -> list[Mapping[str, object]]:
    """Return the mappings of a list."""
    return [item for item in value if is_mapping(item)] if is_list(value) else []


def text(raw: Mapping[str, object], key: str) -> str | None:
    """Return text; None where it is absent or the driver says [N/A]."""
    value = raw.get(key)
    return value if isinstance(value, str) and value not in {"[N/A]", "N/A", "[Not Supported]"} else None


def texts(value: object) -> tuple[str, ...]:
    """Return the texts of a list."""
    return tuple(item for item in value if isinstance(item, str)) if is_list(value) else ()


def numbers(value: object) -> tuple[int, ...]:
    """Return the whole numbers of a list."""
    return tuple(item for item in value if isinstance(item, int)) if is_list(value) else ()


def text_map(value: object) -> dict[str, str]:
    """Return the pairs whose value is text."""
    return {key: item for key, item in mapping(value).items() if isinstance(item, str)}


def number(raw: Mapping[str, object], key: str) -> int | None:
    """Return a whole number; None where this is none."""
    value = raw.get(key)
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None


def moment(stamp: str | None) -> datetime | None:
    """Read docker's RFC 3339 time, which has nine digits of a second; None where it is none, or never was."""
    if not stamp or stamp.startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(stamp.split(".")[0].removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError:
        return None
