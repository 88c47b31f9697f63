"""Bring a model from a hub into the store: resolve, choose, check for room, fetch, verify, and only then name it."""

import functools
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onprem_llm.caches import cache_folder
from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.output import Progress, human_bytes
from onprem_llm.spec.model_source import COMMIT, ModelSource
from onprem_llm.spec.weights_identity import remember_sums
from onprem_llm.weights.arriving import Arriving, reopen
from onprem_llm.weights.fetch import Fetcher, disk_error
from onprem_llm.weights.hubs.hub import Hub, HubFile, Listing, TemporaryError, WrongBodyError
from onprem_llm.weights.jobs import Meter, run_all
from onprem_llm.weights.lock import held
from onprem_llm.weights.manifest import Manifest
from onprem_llm.weights.patience import Patience, Waits, asked_wait
from onprem_llm.weights.reuse import abandoned, take_over
from onprem_llm.weights.selection import Choice, check_code, check_servable, choose
from onprem_llm.weights.store import Entry, Store, remove_tree
from onprem_llm.weights.verify import look_over, read_over

WORKERS = 4


@dataclass(frozen=True)
class Pulled:
    """Weights that are whole now, how many bytes came for it, and what a person should know."""

    source: ModelSource
    entry: Entry
    manifest: Manifest
    fetched: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Look:
    """Whole weights as they are found: which files of them are wrong, and what to say of files that are not theirs."""

    manifest: Manifest
    wrong: frozenset[str]
    notes: tuple[str, ...]


@dataclass
class Puller:
    """Pulls models into a store, from hubs that are opened when they are first needed."""

    store: Store
    hubs: Callable[[str], Hub]
    progress: Progress
    workers: int = WORKERS
    # Read what is there already, instead of looking at its sizes.
    verify: bool = False
    patience: Patience = field(default_factory=Patience)

    def pull(self, source: ModelSource) -> Pulled:
        """Pull a model. What is there is not fetched again, and a full commit that is there asks no hub."""
        there = self.store.find(source) if COMMIT.fullmatch(source.wanted_revision) else None
        state = None
        if there is not None:
            with held(there.lock, str(source)):
                state = self._look(there, source)
            if state is not None and not state.wrong:
                return Pulled(source, there, state.manifest, 0, state.notes)
        self.progress.step(f"Ask {source.source} for {source.id} at {source.wanted_revision}", [])
        hub = self.hubs(source.source)
        # Damaged weights keep their name until the hub has answered: without it they cannot be mended anyway.
        listing = self._listing(hub, source)
        entry = self.store.entry(source, listing.commit)
        with held(entry.lock, str(source)):
            if state is None or entry != there or not entry.complete:
                state = self._look(entry, source)
            pulled = self._brought(hub, source, listing, entry, state)
            self.store.remember(source, listing.commit)
        return pulled

    def _brought(self, hub: Hub, source: ModelSource, listing: Listing, entry: Entry, state: "_Look | None") -> Pulled:
        if state is not None and not state.wrong:
            return Pulled(source, entry, state.manifest, 0, state.notes)
        if state is not None:
            reopen(entry, source.name, [file for file in state.manifest.files if file.path not in state.wrong])
        elif entry.folder.exists():
            # Killed while it was reopened: the verified files are worth keeping.
            remove_tree(entry.folder) if entry.partial.exists() else entry.folder.replace(entry.partial)
        return self._fetch_all(hub, source, listing, entry)

    def _listing(self, hub: Hub, source: ModelSource) -> Listing:
        # Somebody sits before it, and nothing has come yet: given up sooner than a file.
        waits = Waits(replace(self.patience, tries=self.patience.tries // 2, first=self.patience.first * 2))
        while True:
            try:
                listing = hub.listing(source.id, source.wanted_revision)
            except TemporaryError as error:
                wait = waits.next(error)
                if wait is None:
                    raise UnreachableError(
                        f"{source}: {error}{asked_wait(error)}",
                        hint="check the way to the hub (proxy, HF_ENDPOINT, MODELSCOPE_ENDPOINT), or try again later",
                    ) from None
                self.progress.step(f"{error}: asked again in {wait:.0f} s", [])
                time.sleep(wait)
                continue
            if not listing.files:
                raise InvalidError(f"{source}: the hub lists no files there", hint="check id and revision")
            return listing

    def _look(self, entry: Entry, source: ModelSource) -> "_Look | None":
        """Compare weights that are here with their manifest; None where they were not pulled to their end."""
        if not entry.complete:
            return None
        manifest, weights = entry.manifest(), entry.weights()
        if self.verify:
            self.progress.step(f"Verify {source}", [source.name])
            damages = read_over(weights, manifest, self.progress, source.name)
        else:
            damages = look_over(weights, manifest)
        extra = [weights / damage.path for damage in damages if damage.extra]
        if self.verify:
            for path in extra:
                path.unlink()
        what = "removed: not of the model" if self.verify else "not of the model, and in deploy's way: remove it"
        notes = tuple(f"{path}: {what}" for path in extra)
        return _Look(manifest, frozenset(damage.path for damage in damages if not damage.extra), notes)

    def _fetch_all(self, hub: Hub, source: ModelSource, listing: Listing, entry: Entry) -> Pulled:
        choice = choose(source, listing.files)
        check_servable(source, choice)
        arriving = Arriving(entry, source.name)
        missing = self._missing(source, choice, entry, arriving)
        come = sum(arriving.come(file) for file in choice.files)
        _check_room(source, choice.bytes - come, entry.folder.parent)
        count = f"{len(choice.files)} files, {human_bytes(choice.bytes)}"
        self.progress.step(f"Pull {source.id} at {listing.commit[:12]}: {count}", [source.name])
        meter = Meter(self.progress, source.name, choice.bytes, come)
        fetcher = Fetcher(
            str(source),
            lambda file, start: hub.open(source.id, listing, source.wanted_revision, file, start),
            meter.moved, lambda text: self.progress.host(source.name, "running", text), self.patience,
        )  # fmt: skip
        # What may end the pull comes first; then the largest, so that none is left to come alone.
        configs = [file for file in choice.files if file.path.endswith("config.json")]
        self._bring([file for file in missing if file in configs], arriving, fetcher)
        check_code(source, {file.path: arriving.text(file) for file in configs})
        rest = sorted((file for file in missing if file not in configs), key=lambda file: -file.size)
        self._bring(rest, arriving, fetcher)
        manifest = _manifest(source, listing, arriving, choice)
        arriving.finish(manifest)
        remember_sums(cache_folder(), entry.weights(), {file.path: file.sha256 for file in manifest.files})
        self.progress.host(source.name, "ok", count)
        notes = (*choice.notes(), *abandoned(self.store, source, entry))
        return Pulled(source, entry, manifest, meter.fetched, notes)

    def _missing(self, source: ModelSource, choice: Choice, entry: Entry, arriving: Arriving) -> list[HubFile]:
        """Return what must be fetched: what neither an earlier run nor another pull has brought."""
        missing = [file for file in choice.files if not arriving.have(file)]
        count = take_over(self.store, source, entry, missing, arriving, self.workers)
        if count:
            self.progress.step(f"Took {count} files of {source.id} from another pull", [])
        return [file for file in missing if not arriving.have(file)]

    def _bring(self, files: Sequence[HubFile], arriving: Arriving, fetcher: Fetcher) -> None:
        jobs = [functools.partial(_verified, file, arriving, fetcher) for file in files]
        run_all(jobs, self.workers, fetcher.stop)


def _verified(file: HubFile, arriving: Arriving, fetcher: Fetcher) -> None:
    """Fetch a file and verify it; one that is wrong is asked for once more, then given up."""
    part, problem = arriving.part(file), None
    try:
        for _ in range(2):
            try:
                fetcher.fetch(file, part)
            except WrongBodyError as error:
                # Nothing of that answer was kept; what had come before it is as good as it was.
                problem = f"found {error}"
                continue
            problem = arriving.accept(file)
            if problem is None:
                return
            fetcher.discard(part)
    except OSError as error:
        raise disk_error(error, part, f"{fetcher.label}: {file.path}") from None
    raise OnpremError(
        f"{fetcher.label}: {file.path}: what the hub sends is not the file that it lists, twice: {problem}",
        hint="a proxy or mirror may alter it, or it changed meanwhile: run the same command again, or use another "
        "endpoint; what is verified stays",
    )


def _check_room(source: ModelSource, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InvalidError(
            f"{source}: {human_bytes(needed)} are to come, {human_bytes(free)} are free in {folder}",
            hint="make room there, name another folder (--store DIR or ONPREM_LLM_WEIGHTS), or fetch less "
            "(model.include, model.exclude)",
        )


def _manifest(source: ModelSource, listing: Listing, arriving: Arriving, choice: Choice) -> Manifest:
    return Manifest.model_validate({
        "source": source.source, "id": source.id, "commit": listing.commit,
        "commit_is": "commit" if listing.exact else "listing", "include": tuple(sorted(set(source.include))),
        "exclude": tuple(sorted(set(source.exclude))), "allow": tuple(sorted(set(source.allow))),
        "files": arriving.files(choice.files),
    })  # fmt: skip
