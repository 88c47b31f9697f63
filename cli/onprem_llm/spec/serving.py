"""The parts of model.yaml about replicas: how one proves itself, and how they are changed one after another."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from onprem_llm.spec.fields import Model

Routing = Literal["least_load", "session", "prefix_cache"]
Spread = Literal["pack", "spread"]


def _path(value: str) -> str:
    if not value.startswith("/") or any(letter.isspace() for letter in value):
        raise ValueError(f"found {value!r}, expected a path that begins with /, such as /v1/models")
    return value


class Readiness(Model):
    """The real request that a replica must answer before it takes traffic; what is not given follows from `task`.

    `timeout` is that of one request, in seconds; timeouts.readiness is the time for all attempts together.
    """

    path: Annotated[str, AfterValidator(_path)] | None = None
    method: Literal["GET", "POST"] | None = None
    body: dict[str, JsonValue] | None = None
    status: Annotated[int, Field(ge=100, le=599)] = 200
    timeout: Annotated[int, Field(ge=1)] = 120


class Update(Model):
    """How replicas are replaced: how many may be missing, how many may be too many, how long streams may go on."""

    max_unavailable: Annotated[int, Field(ge=0)] = 1
    # None: one for a deployment of one replica where there is room for it, else none; on fixed GPUs there is no spare.
    max_surge: Annotated[int, Field(ge=0)] | None = None
    drain_timeout: Annotated[int, Field(ge=1)] = 300
