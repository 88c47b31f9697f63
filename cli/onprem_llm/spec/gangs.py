"""A replica over several hosts, a gang: whether its engine's sizes can be cut into equal shares."""

from collections.abc import Mapping

from onprem_llm.spec.engine_args import is_auto, normal

PIPELINE, DATA, BACKEND = "pipeline_parallel_size", "data_parallel_size", "distributed_executor_backend"
TENSOR = "tensor_parallel_size"


def size_of(args: Mapping[str, object], name: str) -> int:
    """Return one of the engine's parallel sizes; 1 where it is not set, or no number."""
    found = next((value for flag, value in args.items() if normal(flag) == name), None)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 1


def gang_problem(nodes: int, gpus: object, args: Mapping[str, object]) -> str | None:
    """Say why a replica cannot be spread over so many hosts, and what to write instead; None where it can.

    `gpus` are those of the whole replica: a number, 0 on CPUs, or `all`.
    """
    if nodes == 1:
        return None
    where = f"resources.nodes is {nodes}"
    if gpus == "all":
        return f"{where} and resources.gpus is all: write the GPUs of the whole replica as a number"
    if is_auto(args):
        return (
            f"{where} and engine.engine_args.tensor_parallel_size is auto, which is for one host: "
            f"write {TENSOR}, {PIPELINE} and resources.gpus"
        )
    return _sizes_problem(nodes, gpus, args, where) or _backend_problem(args, where)


def _sizes_problem(nodes: int, gpus: object, args: Mapping[str, object], where: str) -> str | None:
    tensor, pipeline = size_of(args, TENSOR), size_of(args, PIPELINE)
    world = tensor * pipeline
    if size_of(args, DATA) > 1:
        return f"{where}: {DATA} is not spread over hosts: leave it out, and set `replicas`"
    if gpus == 0 and pipeline > 1:
        return f"{where} on CPUs: vLLM's {PIPELINE} fails there at the first request: use {TENSOR}"
    if world % nodes:
        return (
            f"{where}, and {TENSOR} {tensor} times {PIPELINE} {pipeline} is {world}, which {nodes} hosts cannot share "
            f"equally: set {TENSOR} to the GPUs of one host and {PIPELINE} to {nodes}, say"
        )
    if gpus not in (0, world):
        return f"{where}: {TENSOR} times {PIPELINE} is {world}, resources.gpus is {gpus}: set resources.gpus to {world}"
    return None


def _backend_problem(args: Mapping[str, object], where: str) -> str | None:
    backend = next((value for flag, value in args.items() if normal(flag) == BACKEND), None)
    if backend in (None, "mp"):
        return None
    return f"{where}: found engine.engine_args.{BACKEND} {backend!r}, expected none, or mp: no Ray is involved there"
