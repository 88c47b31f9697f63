"""pydantic's findings as sentences: the path in the file, what was found, what was expected, what to do."""

import difflib
import re
from collections.abc import Mapping
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from onprem_llm.errors import InvalidError
from onprem_llm.spec.documents import Location

M = TypeVar("M", bound=BaseModel)

EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}


def checked(
    model: type[M],
    value: Mapping[str, object],
    *,
    where: str,
    prefix: str = "",
    lines: Mapping[Location, int] | None = None,
    hint: str = "mend what is named above; nothing was changed",
) -> M:
    """Validate `value`, or raise one InvalidError that shows every problem.

    `prefix` is put before each path (onprem_llm_site); `lines` gives the line of a path. `hint` is for files that
    nobody writes by hand.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [text for item in error.errors() for text in _sentences(model, item, prefix, lines or {})]
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InvalidError(
            f"{where}: {count}",
            details="\n".join(f"  {problem}" for problem in problems),
            hint=hint,
        ) from None


def _sentences(model: type[BaseModel], error: ErrorDetails, prefix: str, lines: Mapping[Location, int]) -> list[str]:
    # In brackets: which member of a union was meant (spec/replicas.py).
    place, kind = tuple(part for part in error["loc"] if not str(part).startswith("(")), error["type"]
    known = _known_part(model, place)
    if kind == "extra_forbidden":
        return [_named(place, prefix, lines) + _unknown(model, place)]
    if kind == "missing":
        return [_named(place, prefix, lines) + "is missing: add it"]
    if kind == "value_error":
        text = str(error["ctx"]["error"]) if "ctx" in error else error["msg"]
        if known and known[-1] == "engine_args" and len(place) == len(known):
            return [_flag_sentence(place, line, prefix, lines) for line in text.splitlines()]
        return [_named(known, prefix, lines) + text]
    found = _found(error["input"])
    return [_named(known, prefix, lines) + f"found {found}, expected {_expected(error)}"]


def _flag_sentence(place: Location, line: str, prefix: str, lines: Mapping[Location, int]) -> str:
    flag, _, text = line.partition(": ")
    return _named((*place, flag), prefix, lines) + text


def _expected(error: ErrorDetails) -> str:
    if error["type"] in EXPECTED:
        return EXPECTED[error["type"]]
    context = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch":
        return "small letters, digits and -, 40 at most, beginning with a letter or digit"
    if error["type"] == "literal_error":
        return str(context["expected"])
    text = re.sub(r"^(Input|Value|String) should (be|have) (a valid )?", "", error["msg"])
    return text[:1].lower() + text[1:]


def _found(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57]!r}..."
    if isinstance(value, int | float):
        return str(value)
    return {"dict": "a mapping", "list": "a list", "tuple": "a list"}.get(type(value).__name__, type(value).__name__)


def _named(place: Location, prefix: str, lines: Mapping[Location, int]) -> str:
    # What a file calls a key may hold what a terminal obeys.
    parts = [str(part) if str(part).isprintable() else repr(part) for part in place]
    path = ".".join(part for part in (prefix, *parts) if part)
    line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), None)
    return f"{path or 'the file'}{f' (line {line})' if line and path else ''}: "


def _unknown(model: type[BaseModel], place: Location) -> str:
    fields = _fields_at(model, place[:-1])
    near = difflib.get_close_matches(str(place[-1]), fields, n=1, cutoff=0.6)
    expected = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(fields))}"
    return f"unknown key; {expected}"


def _fields_at(model: type[BaseModel], place: Location) -> list[str]:
    owner = _owner(model, place)
    return list(owner.model_fields) if owner else []


def _owner(model: type[BaseModel], place: Location) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in place:
        if current is None or part not in current.model_fields:
            return current
        current = _model_in(current.model_fields[str(part)].annotation)
    return current


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)


def _known_part(model: type[BaseModel], place: Location) -> Location:
    """Cut off what pydantic adds to a path for the members of a union (`shm_size.str`)."""
    current: type[BaseModel] | None = model
    for depth, part in enumerate(place):
        if current is None:
            return tuple(p for p in place if not str(p).startswith(("function-", "literal[", "lax-or-strict")))
        if isinstance(part, int):
            continue
        if part not in current.model_fields:
            return place[:depth]
        annotation = current.model_fields[str(part)].annotation
        current = _model_in(annotation) if "dict[" not in str(annotation) else None
    return place
