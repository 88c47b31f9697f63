"""JSON files of ours that travel between machines: canonical bytes, a schema's version, no key twice."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_mapping
from onprem_llm.weights.names import name_problem, name_problems

T = TypeVar("T")

# No file of ours is nearly as large; what is must not fill the memory.
LARGEST = 256 * 1024 * 1024
NEWER = "update onprem-llm on this machine"


def canonical(value: object) -> bytes:
    """Return the one text of a JSON value: sorted keys, indented by one, a newline at its end."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def read_json(path: Path, *, what: str, schema: int, again: str) -> dict[str, object]:
    """Return the mapping in a file whose `schema_version` this tool knows; errors as for `parse_json`."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST} bytes")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InvalidError(f"{path}: no such file, expected {what}", hint=again) from None
    except (OSError, ValueError) as error:
        raise InvalidError(f"{path}: this is not {what}: {error}", hint=again) from None
    return parse_json(data, str(path), what=what, schema=schema, again=again)


def parse_json(
    data: bytes, where: str, *, what: str, schema: int, again: str, newer: str = NEWER
) -> dict[str, object]:  # fmt: skip
    """Return the mapping in the bytes of a file whose `schema_version` this tool knows.

    `what` names the file's kind in errors (a lock), `again` says how a good one is made, `newer` what to do about one
    that a newer onprem-llm wrote. InvalidError for that, and for everything that is none.
    """
    try:
        # What a script collected may hold a byte that is no UTF-8, in the name of a disk; it must not hide the rest.
        value: object = json.loads(data.decode("utf-8", "replace"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{where}: this is not {what}: {error}", hint=again) from None
    return checked_schema(value, where, what=what, schema=schema, again=again, newer=newer)


def checked_schema(
    value: object, where: str, *, what: str, schema: int, again: str, newer: str = NEWER
) -> dict[str, object]:  # fmt: skip
    """Return a JSON value as a mapping of this schema; InvalidError where it is none."""
    found = value.get("schema_version") if is_mapping(value) else None
    if not is_mapping(value) or type(found) is not int or found < 1:
        raise InvalidError(f"{where}: this is not {what}: it has no schema_version", hint=again)
    if found > schema:
        raise InvalidError(
            f"{where}: made by a newer onprem-llm: found schema_version {found}, expected {schema} at most",
            hint=newer,
        )
    return dict(value)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} stands twice")
        found[key] = value
    return found


def matching(pattern: str, expected: str) -> AfterValidator:
    """Return a check of a text, for pydantic, that says in words what is expected."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"found {value[:80]!r}, expected {expected}")
        return value

    checker: Callable[[str], str] = check
    return AfterValidator(checker)


def _path(value: str) -> str:
    problem = name_problem(value)
    if problem:
        raise ValueError(f"found {value!r}, which {problem}; expected a relative path")
    return value


def _file(value: str) -> str:
    if "/" in _path(value):
        raise ValueError(f"found {value!r}, expected a name without folders")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"found {value[:80]!r}, expected text that can be printed")
    return value


def no_name_twice(names: Sequence[str]) -> None:
    """Raise ValueError, for pydantic, where a name stands twice or is a file and a folder."""
    problems = name_problems(names)
    if problems:
        raise ValueError("; ".join(problems[:3]))


def no_key_twice(what: str, keys: Sequence[str]) -> None:
    """Raise ValueError, for pydantic, where two entries are of one thing."""
    doubled = sorted({key for key in keys if keys.count(key) > 1})
    if doubled:
        raise ValueError(f"{what} twice: {', '.join(doubled[:3])}")


# A path below a folder, and a name in it; neither can lead out.
SafePath = Annotated[str, AfterValidator(_path)]
SafeName = Annotated[str, AfterValidator(_file)]
# For people: nothing that a terminal obeys.
Printable = Annotated[str, AfterValidator(_printable)]
Hex256 = Annotated[str, matching(r"[0-9a-f]{64}", "64 hex digits")]
Digest = Annotated[str, matching(r"sha256:[0-9a-f]{64}", "sha256: and 64 hex digits")]
Size = Annotated[int, Field(ge=0)]
# JSON has lists where we have tuples.
Listed = Annotated[tuple[T, ...], Field(strict=False)]
