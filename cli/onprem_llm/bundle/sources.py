"""Where a lock's bytes are on this machine: the cache of blobs, the weights store, folders of weights."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onprem_llm.bundle.manifest import BLOBS
from onprem_llm.caches import cache_folder
from onprem_llm.errors import InvalidError
from onprem_llm.locking.fetching import Fetch
from onprem_llm.locking.origins import origins_of
from onprem_llm.output import Progress
from onprem_llm.spec.lock import Lock, LockedWeights
from onprem_llm.spec.model_source import HUBS, ModelSource
from onprem_llm.spec.weights_identity import known_places
from onprem_llm.weights.store import Store, store_folder

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Sources:
    """Places of the files whose sha256 a lock names. Nobody is trusted: what is taken is hashed on the way."""

    cache: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    fetch: Fetch | None = None

    def place(self, sha256: str, size: int) -> Path | None:
        """Return a file of that size which is said to have that sum."""
        for path in (self.weights.get(sha256), self.cache / BLOBS / sha256):
            if path is not None and path.is_file() and path.stat().st_size == size:
                return path.resolve()
        return None

    def need(self, wanted: Mapping[str, tuple[int, str]], progress: Progress) -> dict[str, Path]:
        """Return the place of each (size and label by sha256); fetches what is absent; InvalidError names the rest."""
        found = {sha: path for sha, (size, _) in wanted.items() if (path := self.place(sha, size))}
        missing = {sha: label for sha, (_, label) in wanted.items() if sha not in found}
        if missing and self.fetch:
            progress.step(f"Fetch {len(missing)} files that the cache lacks", [])
            self.fetch(missing, progress)
            found = {sha: path for sha, (size, _) in wanted.items() if (path := self.place(sha, size))}
            missing = {sha: label for sha, label in missing.items() if sha not in found}
        if missing:
            lines = [f"  {label} (sha256 {sha})" for sha, label in sorted(missing.items(), key=lambda one: one[1])]
            more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
            raise InvalidError(
                f"{len(missing)} files of the lock are not on this machine",
                details="\n".join([*lines[:_SHOWN], *more]),
                hint=f"looked in {self.cache / BLOBS} and among the weights: make the lock again here (onprem-llm "
                "lock), or pull the weights (onprem-llm weights pull)",
            )
        return found


def sources_of(lock: Lock, lock_path: Path, store: Path | None = None, fetch: Fetch | None = None) -> Sources:
    """Look through what is here."""
    cache = cache_folder()
    weights: dict[str, Path] = {}
    local, remembered = known_places(cache), origins_of(lock).weights
    for one in lock.weights:
        if one.source in HUBS:
            weights.update(_of_hub(Store(store_folder(store)), one))
        else:
            weights.update({file.sha256: local[file.sha256] for file in one.files if file.sha256 in local})
            folders = [lock_path.absolute().parent / Path(one.id).expanduser()]
            folders += [Path(found)] if (found := remembered.get(one.name)) else []
            for folder in folders:
                weights.update(_files_in(folder, one))
    return Sources(cache, weights, fetch)


def _of_hub(store: Store, weights: LockedWeights) -> dict[str, Path]:
    source = ModelSource.model_validate({"source": weights.source, "id": weights.id})
    return store.files_of(source)


def _files_in(folder: Path, weights: LockedWeights) -> Iterator[tuple[str, Path]]:
    """Yield the files of weights that are in a folder, as far as their sizes say."""
    for file in weights.files:
        path = Path(os.path.normpath(folder)) / file.path
        if path.is_file() and path.stat().st_size == file.size:
            yield file.sha256, path
