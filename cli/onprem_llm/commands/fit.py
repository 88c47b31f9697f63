"""`onprem-llm fit`: whether a model fits into the memory of hosts' GPUs, and what would make it fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.options import connection_options

if TYPE_CHECKING:
    from onprem_llm.book_state import HostMark
    from onprem_llm.hosts import HostState
    from onprem_llm.planning.memory.hosts import HostFit
    from onprem_llm.planning.memory.judge import Subject
    from onprem_llm.planning.memory.model_files import ModelFiles
    from onprem_llm.planning.memory.over_hosts import OverHosts
    from onprem_llm.spec.deployment import Deployment
    from onprem_llm.spec.network_facts import NetworkFacts


@dataclass(frozen=True)
class _Seen:
    """The hosts; why those that did not answer did not, by name; what the book says of hosts; lines, if measured."""

    hosts: "tuple[HostState, ...]"
    silent: Mapping[str, str] = field(default_factory=dict)
    marks: "Mapping[str, HostMark]" = field(default_factory=dict)
    network: "NetworkFacts | None" = None


@click.command("fit", short_help="Say whether a model fits into the memory of hosts' GPUs.")
@click.argument("model_yaml", metavar="MODEL_YAML", type=click.Path(path_type=Path))
@click.option(
    "--facts", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="Judge hosts of these facts, which are not reached; repeatable.",
)  # fmt: skip
@click.option(
    "--requests", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="So many requests of the full context are to fit at once.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options(optional=True)
def command(
    model_yaml: Path, facts: tuple[Path, ...], requests: int, as_json: bool, connection: Connection | None
) -> None:
    """Say whether a model fits into the memory of hosts' GPUs: the sum, and the smallest change that makes it fit.

    Read are the headers of the weights, config.json and engine_args. Nothing is changed. Without hosts, what GPUs it
    would need.

    \b
    Example:
      onprem-llm fit model.yaml -i inventory.ini
      onprem-llm fit model.yaml --facts facts.json --requests 8
    """
    from onprem_llm.fit_view import fit_json, fit_text, needs_text
    from onprem_llm.planning.memory.judge import subject_of
    from onprem_llm.planning.memory.over_hosts import judged_over_hosts
    from onprem_llm.spec.deployment import load_deployment

    deployment = load_deployment(model_yaml)
    files = _files(deployment, model_yaml)
    seen = _seen(facts, connection)
    deployment = _spread(_sized(deployment, files, seen), seen)
    subject = subject_of(files, deployment, requests)
    if seen is None:
        if as_json:
            output.show_json(fit_json(subject, None))
        else:
            output.say(needs_text(subject))
        return
    fits = list(_judged(subject, deployment, seen))
    over = judged_over_hosts(subject, deployment, fits, seen.network)
    if as_json:
        output.show_json(fit_json(subject, fits, over))
    else:
        output.say(fit_text(subject, fits, over))
    _end(deployment, fits, seen, over)


def _files(deployment: "Deployment", model_yaml: Path) -> "ModelFiles":
    from onprem_llm.spec.weights_folder import check_folder
    from onprem_llm.weights.headers import read_model_files
    from onprem_llm.weights.local import weights_folder

    folder = weights_folder(deployment, model_yaml)
    check_folder(folder, deployment.model.allow)
    return read_model_files(folder)


def _seen(facts: tuple[Path, ...], connection: Connection | None) -> "_Seen | None":
    """Return what is known of hosts; None where none are named."""
    if facts:
        from onprem_llm.facts.as_hosts import hosts_of
        from onprem_llm.spec.facts import merge_facts
        from onprem_llm.spec.site import Site

        known = merge_facts(facts)
        return _Seen(tuple(hosts_of(known, Site())), network=known.network)
    if connection is None:
        return None
    from onprem_llm.look import look
    from onprem_llm.recorded import GONE

    with output.glimpse() as progress:
        view = look(connection, progress)
    marks = view.current.marks
    reasons = {one.host: one.message.strip().partition("\n")[0] for one in view.failures}
    waited = [name for name in view.current.unreachable if name not in marks or marks[name].state not in GONE]
    left_out = [] if connection.skip_unreachable else waited
    silent = {name: reasons.get(name, "") for name in left_out}
    return _Seen(view.current.hosts, silent, marks, view.current.network)


def _sized(deployment: "Deployment", files: "ModelFiles", seen: "_Seen | None") -> "Deployment":
    """Take what `auto` finds; where it finds nothing, and without hosts, one GPU is what the sum is shown for."""
    from onprem_llm.planning.memory.auto import resolved, sized
    from onprem_llm.spec.engine_args import is_auto

    if not is_auto(deployment.engine.engine_args):
        return deployment
    try:
        return resolved(deployment, files, seen.hosts, None, seen.marks) if seen else sized(deployment, 1)
    except InvalidError:
        return sized(deployment, 1)


def _spread(deployment: "Deployment", seen: "_Seen | None") -> "Deployment":
    """Say over how many hosts a replica goes, as a deploy would find it."""
    from onprem_llm.hosts import Current
    from onprem_llm.planning.gang_placement import nodes_of

    if seen is None:
        return deployment
    nodes = nodes_of(deployment, Current(seen.hosts), None, touched=True)
    if nodes == 1:
        return deployment
    return deployment.model_copy(update={"resources": deployment.resources.model_copy(update={"nodes": nodes})})


def _judged(subject: "Subject", deployment: "Deployment", seen: "_Seen") -> "Iterator[HostFit]":
    from onprem_llm.planning.memory.hosts import HostFit, fit_on

    yield from (fit_on(subject, deployment, host, seen.marks.get(host.name)) for host in seen.hosts)
    yield from (HostFit(name, "unknown", f"it did not answer: {why}") for name, why in seen.silent.items())


def _end(deployment: "Deployment", fits: "list[HostFit]", seen: "_Seen", over: "OverHosts") -> None:
    """Raise where it fits nowhere, or where that is not known since hosts did not answer."""
    from onprem_llm.errors import UnreachableError
    from onprem_llm.planning.memory.over_hosts import carried

    if carried(fits, over.nodes):
        return
    if seen.silent:
        raise UnreachableError(
            f"{', '.join(seen.silent)} did not answer, and {deployment.name} fits on no other host",
            hint="bring them back, or leave them out: --skip-unreachable",
        )
    if any(fit.verdict == "unknown" for fit in fits):
        return
    estimated = any(fit.verdict == "tight" for fit in fits)
    changes = [fit.remedies[0] for fit in fits if fit.remedies] or ([over.spread.remedy] if over.spread else [])
    hint = "larger GPUs, or a smaller model"
    if changes:
        hint = f"the smallest change: {changes[0].what}{f': {changes[0].edit}' if changes[0].edit else ''}"
    marked = [fit.host for fit in fits if fit.marked]
    if marked:
        hint += f"; or let {', '.join(marked)} take part again: onprem-llm host undrain {marked[0]}"
    where = "no host" if over.nodes == 1 else f"no {over.nodes} hosts"
    raise InvalidError(f"{deployment.name} fits on {where}{', by estimate' if estimated else ''}", hint=hint)
