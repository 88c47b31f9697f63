"""A made-up site for `lock`: weights, model.yaml, facts, and its images in a registry."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from tests.made_facts import host_facts
from tests.made_weights import random_safetensors

from onprem_llm.main import cli
from onprem_llm.spec.lock import Lock, read_lock

from .registry import Registry

MODEL = """api_version: 1
name: {name}
model: {model}
engine: {{image: "vllm/vllm-openai:v0.11.0"}}
"""


@dataclass
class Site:
    """A folder with what `lock` reads, and the registry that has its images."""

    folder: Path
    registry: Registry

    @property
    def facts(self) -> Path:
        return self.folder / "facts.json"

    @property
    def out(self) -> Path:
        return self.folder / "onprem-llm.lock"

    def write_facts(self, **hosts: dict[str, Any]) -> None:
        self.facts.write_text(json.dumps({"schema_version": 1, "hosts": hosts}))

    def model(self, name: str = "tiny", model: str = "./Tiny") -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(MODEL.format(name=name, model=model))
        return path

    def push(self) -> None:
        """Push what a deployment with the default settings needs."""
        self.registry.index("vllm/vllm-openai", "v0.11.0", "amd64", "arm64")
        self.registry.image("onprem-llm/gateway", "1", docker=True)
        self.registry.image("onprem-llm/registry", "1")
        self.registry.image("open-webui/open-webui", "v0.6.5")

    def words(self, *models: Path, skip: Sequence[str] = ("packages", "wheels")) -> list[str]:
        options = [word for one in skip for word in ("--skip", one)]
        return [
            "lock", *(str(one) for one in models), "--facts", str(self.facts), "--registry", self.registry.address,
            "-o", str(self.out), *options,
        ]  # fmt: skip

    def lock(self, *models: Path, more: Sequence[str] = (), skip: Sequence[str] = ("packages", "wheels")) -> Lock:
        done = CliRunner().invoke(cli, [*self.words(*models, skip=skip), *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return read_lock(self.out)


def made(folder: Path, registry: Registry) -> Site:
    """Make a site with weights in Tiny and a host of facts."""
    weights = folder / "Tiny"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    (weights / "tokenizer.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(random_safetensors(100_000, 1))
    site = Site(folder, registry)
    site.write_facts(gpu1=host_facts(), gpu2=host_facts())
    site.push()
    return site
