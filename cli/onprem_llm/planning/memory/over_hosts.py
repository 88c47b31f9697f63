"""A replica over several hosts where one is too small: the fewest that carry it, and what to write for it."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

from onprem_llm.planning.compatibility.images import read_tag
from onprem_llm.planning.compatibility.table import table
from onprem_llm.planning.memory.changes import SIZES, Remedy
from onprem_llm.planning.memory.hosts import HostFit
from onprem_llm.planning.memory.judge import GpuKind, Subject, sum_of
from onprem_llm.planning.memory.overhead import CPU
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.gangs import PIPELINE, TENSOR, gang_problem
from onprem_llm.spec.network_facts import NetworkFacts, bad_lines, bad_pairs, joined_well


@dataclass(frozen=True, slots=True)
class Spread:
    """Hosts that carry a replica together, and the change of model.yaml that spreads it over them."""

    hosts: tuple[str, ...]
    remedy: Remedy


@dataclass(frozen=True, slots=True)
class OverHosts:
    """Over how many hosts a replica goes; over which it would fit, where one is too small; lines that bear no gang."""

    nodes: int = 1
    spread: Spread | None = None
    bad_lines: tuple[str, ...] = ()


def judged_over_hosts(
    subject: Subject, deployment: Deployment, fits: Sequence[HostFit], network: NetworkFacts | None
) -> OverHosts:
    """Return what there is to say of several hosts; `network`: lines that were measured, if any were."""
    nodes = deployment.resources.nodes if deployment.resources.nodes != "auto" else 1
    fitting = [fit.host for fit in fits if fit.verdict == "fits"]
    lines = bad_lines(network, fitting) if nodes > 1 else ()
    return OverHosts(nodes, over_hosts(subject, deployment, fits, network), lines)


def carried(fits: Sequence[HostFit], nodes: int) -> bool:
    """Tell whether a replica fits: on one host, or on as many with GPUs of one kind as it goes over."""
    kinds = [fit.total.kind.name if fit.total else "" for fit in fits if fit.verdict == "fits"]
    return any(kinds.count(kind) >= nodes for kind in kinds)


def over_hosts(
    subject: Subject, deployment: Deployment, fits: Sequence[HostFit], network: NetworkFacts | None = None
) -> Spread | None:
    """Return the fewest hosts, and of these the fewest GPUs, over which it fits: a pipeline over hosts.

    Hosts between which something is wrong with a line are not put together. None where one host carries it, where
    model.yaml says over how many it goes, or nothing of this kind helps.
    """
    tag, settings = read_tag(deployment.engine.image), subject.settings
    unable = tag is not None and tag.release < table().multi_node.since
    if unable or settings.data > 1 or deployment.resources.nodes != "auto" or carried(fits, 1):
        return None
    groups: dict[str, list[HostFit]] = {}
    for fit in fits:
        if fit.total is not None and fit.total.kind.name != CPU and fit.gpus and not fit.marked:
            groups.setdefault(fit.total.kind.name, []).append(fit)
    bad = bad_pairs(network)
    found = [spread for group in groups.values() for spread in _spreads(subject, deployment, group, bad)]
    return min(found, key=lambda one: (len(one.hosts), one.remedy.gpus or 0), default=None)


def _spreads(
    subject: Subject, deployment: Deployment, group: list[HostFit], bad: Set[frozenset[str]]
) -> Iterator[Spread]:
    group = sorted(group, key=lambda fit: -fit.gpus)
    for nodes in range(2, min(len(group), subject.model.layers) + 1):
        chosen = joined_well(group, lambda fit: fit.host, nodes, bad)
        if not chosen:
            return
        kinds = [fit.total.kind for fit in chosen if fit.total is not None]
        fullest = min(kinds, key=lambda kind: kind.memory if kind.free is None else kind.free)
        for tensor in (1, *SIZES):
            if tensor <= chosen[-1].gpus:
                remedy = _remedy(subject, deployment, nodes, tensor, fullest)
                if remedy is not None:
                    yield Spread(tuple(fit.host for fit in chosen), remedy)


def _remedy(subject: Subject, deployment: Deployment, nodes: int, tensor: int, kind: GpuKind) -> Remedy | None:
    settings, gpus = subject.settings, tensor * nodes
    args: dict[str, object] = {TENSOR: tensor, PIPELINE: nodes}
    if gpus < settings.gpus or not subject.model.divides(tensor):
        return None
    if gang_problem(nodes, gpus, {**deployment.engine.engine_args, **args}) is not None:
        return None
    batches = settings.batches + nodes - settings.pipeline
    total = sum_of(replace(subject, settings=replace(settings, tensor=tensor, pipeline=nodes, batches=batches)), kind)
    return Remedy(f"over {nodes} hosts", args, gpus, total.left) if total.answer == "fits" else None
