"""engine_args: the flags of vLLM that pass through, and those that the plan owns."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import PlainValidator

# Spelled with underscores; both spellings of a flag are compared in this form.
OWNED_FLAGS = {
    "host": "use `listen`: cluster, all, local or an address",
    "port": "use `port`, the port on the host",
    "api_key": "remove it: the engine's key is made on the hosts and reaches the engine as a file",
    "hf_token": "remove it: it would stand in an argv; engines ask no hub, and env has {from_env: HF_TOKEN}",
    "model": "use `model`, a folder on the control host",
    "model_tag": "use `model`, a folder on the control host",
    "served_model_name": "use `served_name`",
    "trust_remote_code": "use the field `trust_remote_code` beside `engine`",
    "config": "write its keys into engine.engine_args",
    "uds": "use `listen` and `port`",
    "fd": "use `listen` and `port`",
    "root_path": "remove it: the engine is served at /v1",
    **dict.fromkeys(
        ("nnodes", "node_rank", "master_addr", "master_port", "headless"),
        "use `resources.nodes`: the plan says which host has which part of a replica",
    ),
}
# vLLM's one-dash abbreviations; a flag is written with two.
ABBREVIATIONS = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "q": "quantization",
}
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
# The planner finds the fewest GPUs on which the model fits.
TENSOR, AUTO = "tensor_parallel_size", "auto"
TLS_HINT = "remove it: TLS in front of the engine is the gateway's"


def _engine_arg(value: object) -> object:
    problem = _unusable(value)
    if problem:
        raise ValueError(f"found {problem}, expected text, a number, true, false, null, a list or a mapping")
    return value


# Text, a number, true, false, null, or lists and mappings of these.
EngineArg = Annotated[object, PlainValidator(_engine_arg)]


def normal(flag: str) -> str:
    """Spell a flag as vLLM's configuration does: max_model_len for --max-model-len."""
    return flag.removeprefix("--").replace("-", "_")


def args_problems(args: Mapping[str, object]) -> list[str]:
    """Say what is wrong with the names; each line begins with the flag, so that the path can be shown."""
    problems = []
    seen: dict[str, str] = {}
    for flag in args:
        name = normal(flag)
        why = _owned(name)
        if why:
            problems.append(f"{flag}: the plan owns this flag: {why}")
        elif not name or not name.replace("_", "").replace(".", "").isalnum():
            problems.append(f"{flag}: this is not the name of a flag, such as max_model_len")
        elif name in ABBREVIATIONS:
            problems.append(f"{flag}: write {ABBREVIATIONS[name]}")
        elif name in seen:
            problems.append(f"{flag}: stands twice, also as {seen[name]}: remove one")
        seen[name] = flag
    return problems


def _owned(name: str) -> str | None:
    bare = name.removeprefix("no_")
    if bare == "ssl" or bare.startswith("ssl_"):
        return TLS_HINT
    # argparse takes the beginning of a flag for the flag: --trust-remote is --trust-remote-code.
    return next((why for owned, why in OWNED_FLAGS.items() if bare and owned.startswith(bare)), None)


def parallel_size(args: Mapping[str, object]) -> int:
    """Return how many GPUs the parallel sizes ask for on one host; 1 where they are not numbers."""
    size = 1
    for flag, value in args.items():
        if normal(flag) in PARALLEL and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            size *= value
    return size


def tensor_size(args: Mapping[str, object]) -> int | None:
    """Return the tensor parallel size; None where it is not set, or no number."""
    found = next((value for flag, value in args.items() if normal(flag) == TENSOR), None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def is_auto(args: Mapping[str, object]) -> bool:
    """Tell whether the planner is to find the tensor parallel size."""
    return any(normal(flag) == TENSOR and value == AUTO for flag, value in args.items())


def _unusable(value: object) -> str | None:
    if value is None or isinstance(value, str | int | float):
        return None
    if isinstance(value, list):
        return next((problem for item in value if (problem := _unusable(item))), None)
    if isinstance(value, dict):
        wrong_key = next((key for key in value if not isinstance(key, str)), None)
        if wrong_key is not None:
            return f"the key {wrong_key!r}"
        return next((problem for item in value.values() if (problem := _unusable(item))), None)
    return f"{value!r} ({type(value).__name__}; write it in quotes)"
