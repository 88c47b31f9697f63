"""What other pulls of a model have brought: whole or cut off, of another commit, with another choice of files."""

import contextlib
import functools
from collections.abc import Sequence
from threading import Event

from onprem_llm.errors import RefusedError
from onprem_llm.output import human_bytes
from onprem_llm.spec.model_source import ModelSource
from onprem_llm.weights.arriving import Arriving
from onprem_llm.weights.hubs.hub import HubFile
from onprem_llm.weights.jobs import run_all
from onprem_llm.weights.lock import held, is_held
from onprem_llm.weights.store import INCOMING, Entry, Store, size_on_disk


def take_over(
    store: Store, source: ModelSource, entry: Entry, missing: Sequence[HubFile], arriving: Arriving, workers: int
) -> int:
    """Link verified files and take beginnings of others; return how many files were linked.

    What is linked is read again, like any other: a disk may have changed it meanwhile.
    """
    known = store.files_of(source)
    shared = [(file, known[file.sha256]) for file in missing if file.sha256 in known]
    run_all([functools.partial(arriving.adopt, *one) for one in shared], workers, Event())
    rest = [file for file in missing if not arriving.have(file)]
    for other in _cut_off(store, source, entry):
        # One that is at work keeps its own.
        if rest and (other.partial / INCOMING).is_dir() and not is_held(other.lock):
            with contextlib.suppress(RefusedError), held(other.lock, str(source)):
                for file in rest:
                    arriving.take(file, other)
    return len(shared)


def abandoned(store: Store, source: ModelSource, entry: Entry) -> list[str]:
    """Name the pulls of the model that were cut off: nobody may ever go on with them."""
    return [
        f"{other.partial}: cut off, {human_bytes(size_on_disk(other.partial))}: pull it to its end, or remove it: "
        "onprem-llm weights prune"
        for other in _cut_off(store, source, entry)
        if not is_held(other.lock)
    ]


def _cut_off(store: Store, source: ModelSource, entry: Entry) -> list[Entry]:
    return [other for other in store.of_model(source) if other != entry and other.partial.is_dir()]
