"""A hub on loopback, a model on it, and the pull of this checkout with the real client packages."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.hubs.server import HubServer
from tests.made_weights import random_safetensors

from onprem_llm.output import PlainProgress
from onprem_llm.spec.model_source import ModelSource, parse_source
from onprem_llm.weights.hubs import hub_named
from onprem_llm.weights.patience import Patience
from onprem_llm.weights.pull import Pulled, Puller
from onprem_llm.weights.store import Store

HUBS = ("huggingface", "modelscope")
QUICK = Patience(tries=4, first=0.01, longest=2)
NOT_OURS = (
    "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_OFFLINE", "MODELSCOPE_HOME", "MODELSCOPE_CACHE", "MODELSCOPE_DOMAIN",
    "ONPREM_LLM_WEIGHTS", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip
SECRETS = {"HF_TOKEN": "hf_secretsecret", "MODELSCOPE_API_TOKEN": "ms_secretsecret"}


def tiny() -> dict[str, bytes]:
    return {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b"{}" * 900,
        "model-1.safetensors": random_safetensors(300_000, 1),
        "model-2.safetensors": random_safetensors(200_001, 2),
        "sub/empty.txt": b"",
        "README.md": b"# Tiny",
        ".gitattributes": b"*.safetensors filter=lfs",
        "pytorch_model.bin": b"pickled" * 1000,
        "convert.py": b"import os",
        "picture.png": b"png",
    }


WANTED = {"config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors", "sub/empty.txt", "README.md"}


@dataclass
class Bench:
    """A store below a temporary folder, and the hub that it pulls from."""

    server: HubServer
    root: Path
    name: str = "huggingface"

    @property
    def files(self) -> dict[str, bytes]:
        return self.server.models["owner/Tiny"]

    @property
    def store(self) -> Store:
        return Store(self.root / "store")

    def source(self, revision: str = "", **more: tuple[str, ...]) -> ModelSource:
        return parse_source(f"{self.name}:owner/Tiny{'@' if revision else ''}{revision}", **more)

    def puller(self, *, verify: bool = False, patience: Patience = QUICK) -> Puller:
        place = self.store
        return Puller(place, lambda name: hub_named(name, place.clients), PlainProgress(), 4, verify, patience)

    def pull(self, revision: str = "", *, verify: bool = False, **more: tuple[str, ...]) -> Pulled:
        return self.puller(verify=verify).pull(self.source(revision, **more))

    def check(self, pulled: Pulled) -> None:
        """Everything is there, byte by byte, and nothing besides."""
        folder = pulled.entry.weights()
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert found == WANTED == {file.path for file in pulled.manifest.files}
        for path in found:
            assert (folder / path).read_bytes() == self.files[path], path
        assert not pulled.entry.partial.exists()

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start `onprem-llm weights …` as a person would."""
        script = "from onprem_llm.main import main; main()"
        line = [sys.executable, "-c", script, "weights", *words, "--store", str(self.root / "store")]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NOT_OURS:
        monkeypatch.delenv(name, raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({"owner/Tiny": tiny()}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.url)
        yield running


@pytest.fixture(params=HUBS)
def bench(request: pytest.FixtureRequest, server: HubServer, tmp_path: Path) -> Bench:
    return Bench(server, tmp_path, request.param)


@pytest.fixture
def huggingface(server: HubServer, tmp_path: Path) -> Bench:
    return Bench(server, tmp_path)


@pytest.fixture
def modelscope(server: HubServer, tmp_path: Path) -> Bench:
    return Bench(server, tmp_path, "modelscope")
