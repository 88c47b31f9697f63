"""model.yaml: one deployment, as a person writes it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator, StringConstraints, field_validator, model_validator

from onprem_llm.spec.documents import Document, read_document
from onprem_llm.spec.engine_args import EngineArg, args_problems, is_auto, parallel_size
from onprem_llm.spec.fields import Env, ImageRef, Listen, Model, Names, Port, SecretRef, literal_env, secret_env
from onprem_llm.spec.gangs import gang_problem
from onprem_llm.spec.model_source import ModelField
from onprem_llm.spec.problems import checked
from onprem_llm.spec.replicas import Autoscaling, Backend, Replicas, backend_problem
from onprem_llm.spec.schedule import Schedule, TimeZone, schedule_problem
from onprem_llm.spec.serving import Readiness, Routing, Spread, Update

Task = Literal["chat", "completion", "embed", "rerank"]
GpuAccess = Literal["runtime", "gpus", "cdi"]

# What the rendering sets in the container itself: telemetry, the hub, and the engine's own key.
OWNED_ENV = {
    "VLLM_API_KEY": "the engine's key is made on the hosts",
    "VLLM_NO_USAGE_STATS": "telemetry is always off",
    "DO_NOT_TRACK": "telemetry is always off",
    "HF_HUB_DISABLE_TELEMETRY": "telemetry is always off",
    "HF_HUB_OFFLINE": "weights come from `model`, never from a hub",
    "TRANSFORMERS_OFFLINE": "weights come from `model`, never from a hub",
    "NVIDIA_VISIBLE_DEVICES": "use resources.gpus",
    "CUDA_VISIBLE_DEVICES": "use resources.gpus",
}

MAX_NODES = 64


def _gpus(value: object) -> int | Literal["all"]:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"found {value!r}, expected a number of GPUs (0 for a CPU engine) or all")


def _nodes(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_NODES:
        return value
    raise ValueError(f"found {value!r}, expected auto or a number of hosts from 1 to {MAX_NODES}")


def _shm_size(value: str) -> str:
    if re.fullmatch(r"[1-9][0-9]*(\.[0-9]+)?\s*([kmg]b?|b)?", value, re.IGNORECASE):
        return value
    raise ValueError(f"found {value!r}, expected a size such as 16g")


class Engine(Model):
    """The engine and its flags."""

    name: Literal["vllm"] = "vllm"
    image: ImageRef
    engine_args: dict[str, EngineArg] = Field(default_factory=dict)
    shm_size: Annotated[str, AfterValidator(_shm_size)] | None = None

    @field_validator("engine_args")
    @classmethod
    def _not_the_plans(cls, value: dict[str, EngineArg]) -> dict[str, EngineArg]:
        problems = args_problems(value)
        if problems:
            raise ValueError("\n".join(problems))
        return value


class Resources(Model):
    """What a replica needs and where it may run. `gpus` are those of the whole replica, over `nodes` hosts."""

    gpus: Annotated[int | Literal["all"], PlainValidator(_gpus)] = 1
    nodes: Annotated[int | Literal["auto"], PlainValidator(_nodes)] = "auto"
    gpu_models: Names = ()
    hosts: Names = ()
    placement: Spread = "spread"


class Timeouts(Model):
    """How long to wait, in seconds."""

    start: Annotated[int, Field(ge=1)] = 1800
    readiness: Annotated[int, Field(ge=1)] = 300


class Deployment(Model):
    """What one model.yaml describes."""

    api_version: Literal[1]
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    model: ModelField
    served_name: Annotated[str, StringConstraints(min_length=1)] = ""
    task: Task = "chat"
    engine: Engine
    trust_remote_code: bool = False
    resources: Resources = Resources()
    backend: Backend = "compose"
    replicas: Replicas = 1
    schedule: Schedule = ()
    timezone: TimeZone | None = None
    routing: Routing = "least_load"
    readiness: Readiness = Readiness()
    update: Update = Update()
    gpu_access: GpuAccess | None = None
    env: Env = Field(default_factory=dict)
    port: Port = 8000
    listen: Listen = "cluster"
    timeouts: Timeouts = Timeouts()

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value == "open-webui" or value.startswith("open-webui-"):
            raise ValueError("names that begin with open-webui are the web page's own project and keys: choose another")
        if value in {"gateway", "hosts", "keys", "ca"}:
            raise ValueError(f"{value} is the name of a file or folder of the book: choose another")
        return value

    @field_validator("env")
    @classmethod
    def _env_not_owned(cls, value: dict[str, str | SecretRef]) -> dict[str, str | SecretRef]:
        owned = [f"{name} is set by the plan: {why}" for name, why in OWNED_ENV.items() if name in value]
        if owned:
            raise ValueError("; ".join(owned))
        return value

    @model_validator(mode="after")
    def _fill(self) -> "Deployment":
        if not self.served_name:
            # The one default that depends on another field; frozen models are filled this way.
            object.__setattr__(self, "served_name", self.name)
        auto = is_auto(self.engine.engine_args)
        if auto and "gpus" in self.resources.model_fields_set:
            raise ValueError(
                "engine.engine_args.tensor_parallel_size is auto: the planner counts the GPUs: leave resources.gpus out"
            )
        size = parallel_size(self.engine.engine_args)
        if not auto and isinstance(self.resources.gpus, int) and 0 < self.resources.gpus < size:
            raise ValueError(
                f"engine.engine_args asks for {size} GPUs (the product of its parallel sizes), "
                f"resources.gpus is {self.resources.gpus}: set resources.gpus to {size}"
            )
        nodes = self.resources.nodes
        problem = gang_problem(nodes, self.resources.gpus, self.engine.engine_args) if nodes != "auto" else None
        if problem:
            raise ValueError(problem)
        if problem := schedule_problem(self.schedule, self.replica_count, self.timezone, self.backend, nodes):
            raise ValueError(problem)
        if self.update.max_unavailable == 0 and self.update.max_surge == 0:
            raise ValueError("update: max_unavailable and max_surge are both 0: nothing could ever be replaced")
        problem = backend_problem(self.backend, self.replicas)
        if problem:
            raise ValueError(problem)
        return self

    @property
    def replica_count(self) -> int:
        """How many replicas there are to be; where Ray chooses, the fewest."""
        return self.replicas.min if isinstance(self.replicas, Autoscaling) else self.replicas

    @property
    def slots(self) -> int:
        """How many replicas are placed: `replicas`, or as many as run at the most by `schedule`."""
        return max([self.replica_count, *(entry.replicas for entry in self.schedule)])

    def at_most(self, count: int) -> dict[str, object]:
        """Return what of the fields changes where no more than `count` replicas are to be placed."""
        fewer = {"replicas": count if not self.schedule else min(self.replica_count, count)}
        capped = tuple(e.model_copy(update={"replicas": min(e.replicas, count)}) for e in self.schedule)
        return {**fewer, "schedule": capped}

    @property
    def literal_env(self) -> dict[str, str]:
        """The environment that may be read by everybody."""
        return literal_env(self.env)

    @property
    def secret_env(self) -> dict[str, SecretRef]:
        """The environment that travels as a secret."""
        return secret_env(self.env)


def load_deployment(path: Path) -> Deployment:
    """Read a model.yaml; InvalidError shows every problem with its line, what was found, expected and to do."""
    return _deployment(read_document(path))


def parse_deployment(text: str, where: str) -> Deployment:
    """Read the text of a model.yaml, as the book keeps it; `where` names it in errors."""
    return _deployment(Document.parse(text, where))


def _deployment(document: Document) -> Deployment:
    return checked(Deployment, document.value, where=document.where, lines=document.lines)


def model_folder(deployment: Deployment, model_yaml: Path) -> Path:
    """Return the absolute path of a `model` that is a folder: it is relative to the file that names it."""
    return (model_yaml.resolve().parent / Path(deployment.model.path).expanduser()).resolve()


def secret_references(env: Mapping[str, str | SecretRef], folder: Path) -> dict[str, dict[str, str]]:
    """Return where each secret comes from, files as absolute paths: a plan may be applied from another folder."""
    references = {}
    for name, value in secret_env(dict(env)).items():
        if value.from_env is not None:
            references[name] = {"from_env": value.from_env}
        else:
            references[name] = {"from_file": str((folder / Path(str(value.from_file)).expanduser()).resolve())}
    return references
