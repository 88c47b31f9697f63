"""A hub in memory, and a store below a temporary folder that pulls from it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tests.made_weights import safetensors

from onprem_llm.output import PlainProgress
from onprem_llm.spec.model_source import parse_source
from onprem_llm.weights.hubs.hub import Body, HubFile, Listing
from onprem_llm.weights.patience import Patience
from onprem_llm.weights.pull import Pulled, Puller
from onprem_llm.weights.store import Store

FILES = {"config.json": b"{}", "a.safetensors": safetensors(b"a" * 5000), "b.safetensors": safetensors(b"b" * 3000)}
SOURCE = parse_source("huggingface:owner/Tiny")
COMMIT = "c" * 40


class Memory:
    """A hub that counts the bytes it gives."""

    def __init__(self) -> None:
        self.given = 0

    def listing(self, identity: str, revision: str) -> Listing:
        files = [HubFile(path, len(data), sha256=hashlib.sha256(data).hexdigest()) for path, data in FILES.items()]
        return Listing(COMMIT, tuple(files))

    def open(self, identity: str, listing: Listing, revision: str, file: HubFile, start: int) -> Body:
        def chunks() -> Iterator[bytes]:
            for at in range(start, file.size, 500):
                data = FILES[file.path][at : at + 500]
                self.given += len(data)
                yield data

        return Body(start, file.size - start, "", chunks(), lambda: None)


class Place:
    def __init__(self, root: Path) -> None:
        self.store, self.hub = Store(root / "store"), Memory()
        self.entry = self.store.entry(SOURCE, COMMIT)

    def pull(self) -> Pulled:
        puller = Puller(self.store, lambda name: self.hub, PlainProgress(), 1, patience=Patience(2, 0.01))
        pulled = puller.pull(SOURCE)
        for path, data in FILES.items():
            assert (pulled.entry.weights() / path).read_bytes() == data
        assert [file.path for file in pulled.manifest.files] == sorted(FILES)
        assert not pulled.entry.partial.exists()
        assert self.store.find(SOURCE) == self.entry
        return pulled
