"""What a command line asks for: model.yaml files and models named as huggingface:ID@REVISION."""

from collections.abc import Sequence
from pathlib import Path

from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.spec.deployment import load_deployment
from onprem_llm.spec.model_source import HUBS, ModelSource, parse_source
from onprem_llm.weights.store import Entry, Store


def _of_file(name: str) -> ModelSource:
    """Return the model of a model.yaml; InvalidError for a hub that is none, which its name looks like."""
    hub, colon, _ = name.partition(":")
    if colon and "/" not in hub and not Path(name).exists():
        raise InvalidError(
            f"{name}: found neither a file nor a hub {hub!r}, expected a model.yaml or one of {', '.join(HUBS)}",
            hint=f"for example: {next(iter(HUBS))}:Qwen/Qwen3-0.6B",
        )
    return load_deployment(Path(name)).model


def asked_sources(
    names: Sequence[str],
    *,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    allow: tuple[str, ...] = (),
) -> tuple[list[ModelSource], list[str]]:
    """Return the models on hubs, each once, and a note for each model.yaml that needs none.

    The patterns belong to models that are named on the command line; a model.yaml has its own: UsageError for both.
    """
    found: list[ModelSource] = []
    notes: list[str] = []
    for name in names:
        if name.partition(":")[0] in HUBS:
            source = parse_source(name, include=include, exclude=exclude, allow=allow)
        elif include or exclude or allow:
            raise UsageError(
                f"--include, --exclude and --allow do not change {name}",
                hint=f"write them into it, below `model:` (include, exclude, allow), or pull {name} on its own",
            )
        else:
            source = _of_file(name)
        if not source.on_hub:
            notes.append(f"{name}: its model is a folder of this machine ({source.path}): nothing to pull")
        elif source not in found:
            found.append(source)
    return found, notes


def asked_entries(store: Store, names: Sequence[str], *, keep: bool = False, old: bool = False) -> list[Entry]:
    """Return the pulled weights of what is named, everything without a name; InvalidError for what was not pulled.

    With `keep`, a model's cut-off pulls count, too, and with them every commit of a model.yaml's model: what runs may
    be an earlier one than the last that was pulled. `old` leaves these out.
    """
    everything = [entry for entry in store.entries() if entry.complete or keep]
    if not names:
        return everything
    found: list[Entry] = []
    for name in names:
        on_line = name.partition(":")[0] in HUBS
        source = parse_source(name) if on_line else _of_file(name)
        if not source.on_hub:
            continue
        of_model = store.of_model(source)
        entries = [entry for entry in of_model if keep and not entry.complete]
        if on_line or (keep and not old):
            entries += _named(store, of_model, source.revision if on_line else "")
        elif entry := store.find(source):
            entries.append(entry)
        if not entries:
            raise InvalidError(
                f"{name}: not in {store.root}, or not pulled to its end", hint=f"onprem-llm weights pull {name}"
            )
        found += [entry for entry in entries if entry not in found]
    return found


def _named(store: Store, of_model: Sequence[Entry], revision: str) -> list[Entry]:
    """Return every choice of files of a model; of all its revisions where none is named."""
    entries = [entry for entry in of_model if entry.complete]
    return [entry for entry in entries if not revision or revision in (*store.revisions(entry), entry.commit)]
