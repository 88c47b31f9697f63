"""What of the store may go: nothing that is named, nothing that is being pulled."""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.weights.lock import held, is_held
from onprem_llm.weights.store import Entry, Store, remove_tree, size_on_disk


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder that may be removed, and why."""

    folder: Path
    entry: Entry
    why: str
    bytes: int


def leftovers(store: Store, kept: Collection[Entry], *, whole: bool) -> tuple[list[Leftover], list[str]]:
    """Return what may go, and notes on what is left because a pull is at work there.

    Whole weights go only with `whole`, and never one of `kept`; a cut-off pull of a kept one stays, too.
    """
    found: list[Leftover] = []
    notes: list[str] = []
    for entry in store.entries():
        if entry in kept:
            continue
        if is_held(entry.lock):
            notes.append(f"{entry.model} at {entry.commit[:12]} is being pulled or sent now: left as it is")
            continue
        if entry.partial.exists():
            found.append(Leftover(entry.partial, entry, "cut off before its end", size_on_disk(entry.partial)))
        if entry.folder.exists() and (whole or not entry.complete):
            why = "whole, not named by --keep" if entry.complete else "not whole"
            found.append(Leftover(entry.folder, entry, why, size_on_disk(entry.folder)))
    found += [Leftover(path, entry, "half removed", size_on_disk(path)) for path, entry in store.half_removed()]
    return found, notes


def remove(store: Store, found: Sequence[Leftover]) -> None:
    """Remove them, each under its lock; then what is empty."""
    for leftover in found:
        with held(leftover.entry.lock, str(leftover.folder)):
            if leftover.folder.exists():
                remove_tree(leftover.folder)
            _forget(store, leftover.entry)
            leftover.entry.lock.unlink(missing_ok=True)
        _remove_empty(leftover.entry.folder.parent)


def _forget(store: Store, entry: Entry) -> None:
    """Remove the revisions that named this commit."""
    if not entry.folder.exists() and not entry.partial.exists():
        for ref in store.refs(entry):
            ref.unlink()


def _remove_empty(model: Path) -> None:
    """Remove a model's folder once nothing is in it; a pull that begins meanwhile makes it anew, or fills it."""
    for folder in (model / "refs", model):
        with contextlib.suppress(OSError):
            folder.rmdir()
