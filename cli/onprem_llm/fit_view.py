"""How a verdict on memory is shown: a table of hosts, a sum for each kind of GPU, and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from onprem_llm.output import human_bytes, table_text
from onprem_llm.planning.memory.changes import SIZES, Remedy
from onprem_llm.planning.memory.hosts import HostFit
from onprem_llm.planning.memory.judge import GpuKind, Subject, Sum, sum_of
from onprem_llm.planning.memory.over_hosts import OverHosts, carried
from onprem_llm.planning.memory.overhead import CPU
from onprem_llm.planning.memory.words import remedy_line, sum_lines

COLUMNS = ("host", "gpus", "verdict", "needs a gpu", "may take", "at once", "why")
NEEDS = ("gpus", "weights a gpu", "kv cache a gpu", "with estimates", "a gpu of")
# The kinds of GPU that are sold, in GiB: to say which would do where there is no host to judge.
_SOLD = (16, 24, 32, 40, 48, 80, 96, 141, 192, 288)
GIB = 1024**3
ONE_HOST = OverHosts()


def fit_text(subject: Subject, fits: Sequence[HostFit], over: OverHosts = ONE_HOST) -> str:
    """Lay out the hosts, and the sum of each kind of GPU with what would make it fit."""
    parts = [f"A replica goes over {over.nodes} hosts: a verdict is of a host's share."] if over.nodes > 1 else []
    if over.bad_lines:
        parts.append("\n".join(["No replica over several hosts belongs on these lines:", *over.bad_lines]))
    parts += [table_text(COLUMNS, [_row(fit) for fit in fits])]
    for hosts in _by_kind(fits):
        first = hosts[0]
        if first.total is not None:
            place = "on CPUs" if first.total.kind.name == CPU else f"on each {first.total.kind.name}"
            title = f"{', '.join(fit.host for fit in hosts)}: {place}"
            lines = [title, *sum_lines(first.total, subject), *(f"  {line}" for line in _changes(first))]
            parts.append("\n".join(lines))
    if over.spread is not None:
        together = ", ".join(over.spread.hosts)
        parts.append(f"{together} together (docs/multi-node.md): {remedy_line(over.spread.remedy)}")
    return "\n\n".join(parts)


def needs_text(subject: Subject) -> str:
    """Lay out what a GPU needs by how many share the model, where there is no host to judge."""
    table = table_text(NEEDS, [_need(total, size, kind) for size, total, kind in _needs(subject)])
    return f"{table}\n\nName hosts to judge: -i INVENTORY, or --facts FILE"


def fit_json(subject: Subject, fits: Sequence[HostFit] | None, over: OverHosts = ONE_HOST) -> dict[str, object]:
    """Return the whole verdict; bytes everywhere."""
    model, settings, files = subject.model, subject.settings, subject.files
    found: dict[str, object] = {
        "model": {
            "type": model.kind,
            "file_bytes": files.file_bytes,
            "loaded_bytes": subject.weights.bytes,
            "not_loaded_bytes": subject.weights.left_out,
            "quantization": model.quantization or settings.quantization,
            "dtype": settings.dtype,
            "not_counted": list(model.strange),
        },
        "max_model_len": settings.length,
        "requests": subject.requests,
        "kv_cache_dtype": settings.kv_dtype,
        "gpus_of_a_replica": settings.gpus,
    }
    if fits is None:
        needs = [{"gpus": size, **_sum_json(total)} for size, total, _ in _needs(subject)]
        return {**found, "needs": needs}
    together = over.spread and {"hosts": list(over.spread.hosts), **_remedy_json(over.spread.remedy)}
    found |= {"nodes": over.nodes, "over_hosts": together, "bad_lines": list(over.bad_lines)}
    return {**found, "hosts": [_host_json(fit) for fit in fits], "fits": carried(fits, over.nodes)}


def _host_json(fit: HostFit) -> dict[str, object]:
    return {
        "host": fit.host,
        "verdict": fit.verdict,
        "why": fit.why,
        "gpus": fit.gpus,
        "gpu": fit.total.kind.name if fit.total else None,
        "sum": _sum_json(fit.total) if fit.total else None,
        "changes": [_remedy_json(remedy) for remedy in fit.remedies],
    }


def _sum_json(total: Sum) -> dict[str, object]:
    return {
        "gpu_bytes": total.kind.memory,
        "free_bytes": total.free,
        "share": total.share,
        "budget_bytes": total.budget,
        "needed_bytes": total.needed,
        "left_bytes": total.left,
        "weights_bytes": total.weights,
        "kv_cache_bytes": total.kv_taken,
        "estimated": {
            "driver_bytes": total.driver,
            "activations_bytes": total.activations,
            "libraries_bytes": total.libraries,
            "cuda_graphs_bytes": total.graphs,
        },
        "kv_bytes_per_token": total.cache.token_bytes,
        "kv_block_tokens": total.cache.block,
        "kv_blocks": total.cache.blocks_in(total.kv_room),
        "kv_tokens": int(total.at_once * total.length) if total.cache.groups else None,
        "requests_at_once": round(total.at_once, 2) if total.cache.groups else None,
    }


def _remedy_json(remedy: Remedy) -> Mapping[str, object]:
    return {
        "what": remedy.what,
        "engine_args": dict(remedy.args),
        "gpus": remedy.gpus,
        "left_bytes": remedy.left,
        "weights_bytes": remedy.other_weights,
    }


def _row(fit: HostFit) -> tuple[object, ...]:
    total = fit.total
    gpus = f"{fit.gpus} x {total.kind.name}" if total and fit.gpus else total and total.kind.name
    if total is None:
        return (fit.host, gpus, fit.verdict, None, None, None, fit.why)
    at_once = f"{total.at_once:.1f}" if total.cache.groups else None
    return (fit.host, gpus, fit.verdict, human_bytes(total.needed), human_bytes(total.budget), at_once, fit.why)


def _by_kind(fits: Sequence[HostFit]) -> list[list[HostFit]]:
    """Put hosts together whose sums are the same, and what would make it fit there too."""
    groups: dict[tuple[GpuKind, int], list[HostFit]] = {}
    for fit in fits:
        if fit.total is not None:
            groups.setdefault((fit.total.kind, 0 if fit.verdict == "fits" else fit.gpus), []).append(fit)
    return list(groups.values())


def _changes(fit: HostFit) -> Iterator[str]:
    if fit.verdict not in {"no", "tight"} or fit.total is None or fit.total.answer == "fits":
        return
    if not fit.remedies:
        yield "no change of context, KV cache, GPUs or quantisation makes it fit here: larger GPUs, or a smaller model"
        return
    yield "what makes it fit, the smallest change first:"
    yield from (f"- {remedy_line(remedy)}" for remedy in fit.remedies)


def _needs(subject: Subject) -> Iterator[tuple[int, Sum, GpuKind | None]]:
    settings = subject.settings
    for size in sorted({settings.tensor, 1, *SIZES}):
        if size < settings.tensor or not subject.model.divides(size):
            continue
        wider = replace(subject, settings=replace(settings, tensor=size))
        sums = [sum_of(wider, GpuKind(f"{gib} GB", gib * GIB)) for gib in _SOLD]
        kind = next((total.kind for total in sums if total.answer == "fits"), None)
        total = next((total for total in sums if total.kind == kind), sums[-1])
        yield size * settings.pipeline * settings.data, total, kind


def _need(total: Sum, size: int, kind: GpuKind | None) -> tuple[object, ...]:
    cells = (human_bytes(total.weights), human_bytes(total.kv_taken), human_bytes(total.needed))
    return (size, *cells, kind.name if kind else f"more than {_SOLD[-1]} GB")
