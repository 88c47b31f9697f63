"""`onprem-llm weights`: models from a hub, on this machine, checked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from onprem_llm import output
from onprem_llm.errors import OnpremError, UsageError

C = TypeVar("C", bound=Callable[..., Any])
COLUMNS = ("model", "revision", "commit", "files", "size", "state")


@click.group("weights", short_help="Weights of models: pull, verify, list, prune.")
def command() -> None:
    """Weights of models, pulled from a hub to this machine, checked, and kept in a store for `deploy`.

    \b
    Example:
      onprem-llm weights pull model.yaml
      onprem-llm weights pull huggingface:Qwen/Qwen3-0.6B
      onprem-llm deploy model.yaml
    """


def _common(function: C) -> C:
    """Add the options that every verb has."""
    store = click.option(
        "--store", type=click.Path(path_type=Path), metavar="DIR",
        help="Where weights are kept.  [default: $ONPREM_LLM_WEIGHTS or weights/ in the cache folder]",
    )  # fmt: skip
    return store(click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function))


@command.command("pull", short_help="Fetch weights from a hub and verify them.")
@click.argument("models", metavar="MODEL_YAML|SOURCE:ID[@REVISION]...", nargs=-1, required=True)
@click.option("--include", multiple=True, metavar="PATTERN", help="Only such files; repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No such files; repeatable.")
@click.option("--allow", multiple=True, metavar="FILE", help="A pickled file or code that may be fetched; repeatable.")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Files at a time.")
@click.option("--verify", is_flag=True, help="Read what is there; fetch again what is damaged, remove what is foreign.")
@_common
def pull(
    models: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    allow: tuple[str, ...],
    jobs: int,
    verify: bool,
    store: Path | None,
    as_json: bool,
) -> None:
    """Fetch weights from a hub and verify every file. What is there is not fetched again; a cut-off pull goes on.

    Tokens come from HF_TOKEN and MODELSCOPE_API_TOKEN, mirrors from HF_ENDPOINT and MODELSCOPE_ENDPOINT.

    \b
    Example:
      onprem-llm weights pull model.yaml
      onprem-llm weights pull huggingface:Qwen/Qwen3-0.6B@main
      onprem-llm weights pull modelscope:Qwen/Qwen3-0.6B --exclude '*.md' --json
    """
    from onprem_llm.weights.asked import asked_sources
    from onprem_llm.weights.hubs import hub_named
    from onprem_llm.weights.pull import Puller
    from onprem_llm.weights.store import Store, store_folder

    sources, notes = asked_sources(models, include=include, exclude=exclude, allow=allow)
    place = Store(store_folder(store))
    with output.progress() as progress:
        puller = Puller(place, lambda name: hub_named(name, place.clients), progress, jobs, verify)
        pulled = [puller.pull(source) for source in sources]
    notes += [f"{one.source}: {text}" for one in pulled for text in one.notes]
    if as_json:
        output.show_json({"pulled": [_pulled(one) for one in pulled], "notes": notes})
    else:
        for one in pulled:
            came = f"{output.human_bytes(one.fetched)} fetched" if one.fetched else "nothing to fetch"
            output.say(f"{one.source}: {output.human_bytes(one.manifest.bytes)} in {one.entry.weights()} ({came})")
    for text in notes:
        output.note(text)


def _pulled(one: Any) -> dict[str, object]:
    return {
        "model": one.entry.model,
        "commit": one.manifest.commit,
        "commit_is": one.manifest.commit_is,
        "folder": str(one.entry.weights()),
        "manifest": str(one.entry.manifest_path),
        "files": len(one.manifest.files),
        "bytes": one.manifest.bytes,
        "fetched": one.fetched,
    }


@command.command("verify", short_help="Compare pulled weights with their manifests, byte by byte.")
@click.argument("models", metavar="[MODEL_YAML|SOURCE:ID[@REVISION]]...", nargs=-1)
@_common
def verify(models: tuple[str, ...], store: Path | None, as_json: bool) -> None:
    """Compare pulled weights with their manifests, byte by byte; all of them where none is named. Changes nothing.

    \b
    Example:
      onprem-llm weights verify
      onprem-llm weights verify model.yaml
    """
    from onprem_llm.weights.asked import asked_entries
    from onprem_llm.weights.store import Store, store_folder
    from onprem_llm.weights.verify import Damage, read_over

    found: list[tuple[Any, list[Damage]]] = []
    with output.progress() as progress:
        for entry in asked_entries(Store(store_folder(store)), models):
            progress.step(f"Verify {entry.model} at {entry.commit[:12]}", [entry.model])
            damages = read_over(entry.weights(), entry.manifest(), progress, entry.model)
            progress.host(entry.model, "failed" if damages else "ok")
            found.append((entry, damages))
    if as_json:
        output.show_json({"verified": [_verified(entry, damages) for entry, damages in found]})
    lines = [f"  {e.weights() / d.path}: found {d.found}, expected {d.expected}" for e, ds in found for d in ds]
    if lines:
        raise OnpremError(
            f"{len(lines)} of the files are not as they were pulled",
            details="\n".join(lines),
            hint="fetch them again: onprem-llm weights pull --verify MODEL",
        )
    if not as_json:
        output.say(f"As they were pulled: {', '.join(entry.model for entry, _ in found) or 'nothing has been pulled'}")


def _verified(entry: Any, damages: Sequence[Any]) -> dict[str, object]:
    return {
        "model": entry.model,
        "commit": entry.commit,
        "folder": str(entry.weights()),
        "damages": [{"path": one.path, "found": one.found, "expected": one.expected} for one in damages],
    }


@command.command("list", short_help="Show what has been pulled.")
@_common
def list_weights(store: Path | None, as_json: bool) -> None:
    """Show what has been pulled, whole or in part.

    \b
    Example:
      onprem-llm weights list
    """
    from onprem_llm.weights.store import Store, size_on_disk, store_folder

    place = Store(store_folder(store))
    rows = [_row(place, entry) for entry in place.entries()]
    on_disk = size_on_disk(*(Path(row["folder"]) for row in rows))
    if as_json:
        output.show_json({"store": str(place.root), "bytes_on_disk": on_disk, "weights": rows})
    elif rows:
        output.show_table(COLUMNS, [_cells(row) for row in rows])
        output.note(f"{output.human_bytes(on_disk)} on the disk: what commits of a model share is there once")
    else:
        output.note(f"{place.root} holds no weights. Fetch some: onprem-llm weights pull MODEL_YAML")


def _row(place: Any, entry: Any) -> dict[str, Any]:
    from onprem_llm.weights.lock import is_held
    from onprem_llm.weights.store import size_on_disk

    row = {"model": entry.model, "revisions": place.revisions(entry), "commit": entry.commit}
    if entry.complete:
        try:
            manifest = entry.manifest()
        except OnpremError as error:
            # One that is damaged or newer must not hide the others.
            return {
                **row,
                "files": None,
                "bytes": 0,
                "state": error.message.rpartition(": ")[2],
                "folder": str(entry.folder),
            }
        return {
            **row, "commit_is": manifest.commit_is, "files": len(manifest.files), "bytes": manifest.bytes,
            "state": "whole", "folder": str(entry.weights()), "include": manifest.include,
            "exclude": manifest.exclude, "allow": manifest.allow,
        }  # fmt: skip
    there = entry.partial if entry.partial.exists() else entry.folder
    state = "being pulled" if is_held(entry.lock) else "cut off"
    return {**row, "files": None, "bytes": size_on_disk(there), "state": state, "folder": str(there)}


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    parts = ", some files" if row.get("include") or row.get("exclude") or row.get("allow") else ""
    size = output.human_bytes(row["bytes"])
    return (
        row["model"], ", ".join(row["revisions"]) or None, row["commit"][:12], row["files"], size, row["state"] + parts
    )  # fmt: skip


@command.command("prune", short_help="Remove cut-off pulls, and weights that nothing named uses.")
@click.option(
    "--keep", multiple=True, metavar="MODEL", help="A model.yaml or SOURCE:ID whose weights stay; repeatable."
)
@click.option("--old", is_flag=True, help="With --keep: of a model.yaml, keep only what its next deploy would use.")
@click.option("--all", "everything", is_flag=True, help="Remove all weights.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_common
def prune(
    keep: tuple[str, ...], old: bool, everything: bool, dry_run: bool, yes: bool, store: Path | None, as_json: bool
) -> None:
    """Remove pulls that were cut off; with --keep, also whole weights of all other models.

    Earlier commits of a kept model stay, too, since one of them may be what runs: --old removes them. What is being
    pulled now is left alone. Hosts keep the weights that they have.

    \b
    Example:
      onprem-llm weights prune --dry-run
      onprem-llm weights prune --keep deepseek.yaml --keep embed.yaml
    """
    from onprem_llm.weights.asked import asked_entries
    from onprem_llm.weights.prune import leftovers, remove
    from onprem_llm.weights.store import Store, size_freed, store_folder

    if keep and everything:
        raise UsageError("--keep and --all exclude each other", hint="onprem-llm weights prune --help")
    if old and not keep:
        raise UsageError("--old says what --keep leaves out, and there is no --keep", hint="add --keep MODEL_YAML")
    place = Store(store_folder(store))
    kept = asked_entries(place, keep, keep=True, old=old) if keep else []
    found, notes = leftovers(place, kept, whole=bool(keep) or everything)
    freed = size_freed(one.folder for one in found)
    total = output.human_bytes(freed)
    if found and not as_json:
        rows: Sequence[Sequence[object]] = [
            (one.entry.model, one.entry.commit[:12], output.human_bytes(one.bytes), one.why) for one in found
        ]
        output.show_table(("model", "commit", "size", "why"), rows)
    removed = bool(found) and not dry_run
    if removed:
        output.agree(f"Remove these? {total} become free.", yes=yes)
        remove(place, found)
    if as_json:
        document = [{"folder": str(one.folder), "bytes": one.bytes, "why": one.why} for one in found]
        output.show_json({"removed": removed, "bytes_freed": freed, "weights": document, "notes": notes})
    elif not found:
        output.say("Nothing to remove.")
    elif removed:
        output.say(f"Removed {total}.")
    for text in notes:
        output.note(text)
