"""`backend` and `replicas` of model.yaml: who runs the replicas, and how many, fixed or within bounds."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from onprem_llm.spec.fields import Model

Backend = Literal["compose", "ray"]

MAX_REPLICAS = 64


class Autoscaling(Model):
    """How many replicas Ray runs: as many as keep each at `target_ongoing_requests`, within bounds; delays in seconds.

    The defaults are those of Ray Serve, but the bounds.
    """

    min: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    max: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 2.0
    upscale_delay: Annotated[float, Field(ge=0)] = 30.0
    downscale_delay: Annotated[float, Field(ge=0)] = 600.0

    @model_validator(mode="after")
    def _in_order(self) -> "Autoscaling":
        if self.min > self.max:
            raise ValueError(f"found min: {self.min} and max: {self.max}, expected min to be max at most")
        return self


def _shape(value: object) -> str:
    return "(mapping)" if isinstance(value, dict | Autoscaling) else "(number)"


# A union would report what is wrong with each of its members; the shape says which one was meant.
Replicas = Annotated[
    Annotated[int, Field(ge=1, le=MAX_REPLICAS), Tag("(number)")] | Annotated[Autoscaling, Tag("(mapping)")],
    Discriminator(_shape),
]


def backend_problem(backend: Backend, replicas: int | Autoscaling) -> str | None:
    """Say what does not go together, and what to write."""
    if backend == "compose" and isinstance(replicas, Autoscaling):
        return (
            f"replicas: found min: {replicas.min} and max: {replicas.max} with backend: compose, expected a number: "
            f"scaling by load is Ray's. Write `backend: ray`, or `replicas: {replicas.min}`"
        )
    return None
