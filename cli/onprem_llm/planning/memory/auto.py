"""`tensor_parallel_size: auto`: the fewest GPUs on which a model fits."""

from collections.abc import Collection, Sequence

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import HostState
from onprem_llm.planning.memory.hosts import Verdict, kind_of
from onprem_llm.planning.memory.judge import GpuKind, Subject, Sum, subject_of, sum_of
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.planning.memory.words import sum_lines
from onprem_llm.planning.offers import may_run_on, model_accepted
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.engine_args import AUTO, TENSOR, is_auto, normal, tensor_size

SIZES = (1, 2, 4, 8, 16)


def resolved(
    deployment: Deployment,
    files: ModelFiles,
    hosts: Sequence[HostState],
    before: Deployment | None = None,
    marked: Collection[str] = (),
) -> Deployment:
    """Return the deployment with the tensor parallel size, and resources.gpus, that `auto` stands for.

    `before` is what the book has of the same weights: its size stays where nothing was changed that touches memory,
    whatever GPUs came meanwhile. `marked` names the hosts that get nothing new: drained, lost.
    Raises InvalidError with the sum where it fits on no host's GPUs of one kind.
    """
    if not is_auto(deployment.engine.engine_args):
        return deployment
    if (
        before is not None
        and (size := tensor_size(before.engine.engine_args))
        and _same_memory(before, kept := sized(deployment, size))
    ):
        return kept
    hosts = _open(deployment, hosts, marked)
    fits = {size: found for size in SIZES if (found := _best(sized(deployment, size), files, hosts))}
    likely = [size for size, (verdict, _, _) in fits.items() if verdict == "fits"]
    estimated = [size for size, (verdict, total, _) in fits.items() if verdict == "tight" and not total.doubt]
    # Where it is not known what is needed, most GPUs are the likeliest to do.
    doubted = [size for size, (verdict, _, _) in fits.items() if verdict == "tight" and size not in estimated]
    if likely or estimated or doubted:
        return sized(deployment, next(iter([*likely, *estimated, *reversed(doubted)])))
    raise _nowhere(deployment, fits[max(fits)] if fits else None)


def sized(deployment: Deployment, size: int) -> Deployment:
    """Return the deployment with this tensor parallel size in place of `auto`, and the GPUs that it takes."""
    args = {flag: size if normal(flag) == TENSOR else value for flag, value in deployment.engine.engine_args.items()}
    engine = deployment.engine.model_copy(update={"engine_args": args})
    pipeline = next((v for f, v in args.items() if normal(f) == "pipeline_parallel_size" and isinstance(v, int)), 1)
    data = next((v for f, v in args.items() if normal(f) == "data_parallel_size" and isinstance(v, int)), 1)
    resources = deployment.resources.model_copy(update={"gpus": size * pipeline * data})
    return deployment.model_copy(update={"engine": engine, "resources": resources})


def _same_memory(one: Deployment, other: Deployment) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in ("engine", "model", "resources"))


def _open(deployment: Deployment, hosts: Sequence[HostState], marked: Collection[str]) -> Sequence[HostState]:
    """Return the hosts that could take a replica now; all that may where none can, and placing says why none can."""
    may = [host for host in hosts if may_run_on(deployment, host)]
    return [host for host in may if host.engine.running and host.name not in marked] or may


def _best(deployment: Deployment, files: ModelFiles, hosts: Sequence[HostState]) -> tuple[Verdict, Sum, Subject] | None:
    """Return the best verdict on any host that has so many GPUs of one kind; None where no host has."""
    subject = subject_of(files, deployment)
    if not subject.model.divides(subject.settings.tensor):
        return None
    sums = [sum_of(subject, kind) for kind in _kinds(deployment, hosts, subject.settings.gpus)]
    if not sums:
        return None
    best = max(sums, key=lambda one: (one.answer == "fits", one.answer == "tight", one.left))
    return best.answer, best, subject


def _kinds(deployment: Deployment, hosts: Sequence[HostState], count: int) -> list[GpuKind]:
    """Return the kinds of GPU of which a host has so many; what is in use now does not count."""
    found: dict[GpuKind, None] = {}
    for host in hosts:
        kinds = [kind_of(gpu) for gpu in host.gpus if model_accepted(gpu, deployment.resources.gpu_models)]
        for kind in kinds:
            if kind is not None and kinds.count(kind) >= count:
                found[kind] = None
    return list(found)


def _nowhere(deployment: Deployment, best: tuple[Verdict, Sum, Subject] | None) -> InvalidError:
    name = f"engine.engine_args.{TENSOR} of {deployment.name}: {AUTO}"
    if best is None:
        return InvalidError(
            f"{name}: no host that may run it has a GPU whose memory is known",
            hint="write the number of GPUs and resources.gpus, or look at the GPUs: onprem-llm fit MODEL_YAML",
        )
    _, total, subject = best
    return InvalidError(
        f"{name}: the model fits on no host, with {subject.settings.gpus} GPUs of {total.kind.name} neither",
        details="\n".join(sum_lines(total, subject)),
        hint="what would make it fit: onprem-llm fit MODEL_YAML",
    )
