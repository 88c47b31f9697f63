"""docs/model.md and docs/site.md have every field, its default, and no field that does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.fields import SecretRef
from onprem_llm.spec.site import Site

DOCS = Path(__file__).resolve().parents[2] / "docs"
CASES = [(Deployment, "model.md"), (Site, "site.md")]


def nested(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if annotation is SecretRef else annotation
    return next((found for part in get_args(annotation) if (found := nested(part))), None)


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field.default
        inner = nested(field.annotation)
        if inner is not None:
            yield from fields(inner, f"{prefix}{name}.")


def rows(page: str) -> dict[str, str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([a-z0-9_.]+)` \|(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize(("model", "page"), CASES)
def test_every_field_has_a_row_and_every_row_a_field(model: type[BaseModel], page: str) -> None:
    documented = {name for name in rows(page) if name not in {"true", "false", "null"}}
    assert documented == {name for name, _ in fields(model)}


@pytest.mark.parametrize(("model", "page"), CASES)
def test_plain_defaults_are_the_documented_ones(model: type[BaseModel], page: str) -> None:
    documented = rows(page)
    for name, default in fields(model):
        if default is PydanticUndefined or default in (None, "", ()) or isinstance(default, BaseModel):
            continue
        text = str(default).lower() if isinstance(default, bool) else str(default)
        assert f"`{text}`" in documented[name], f"{page}: the default of {name} is {text}"
