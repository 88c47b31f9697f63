"""What tests of the store share: a model.yaml, the command line, damage."""

from pathlib import Path

from click.testing import CliRunner
from tests.hubs.conftest import Bench

from onprem_llm.commands.weights import command
from onprem_llm.spec.deployment import Deployment, load_deployment
from onprem_llm.weights.pull import Pulled

MODEL_YAML = """
api_version: 1
name: tiny
model: {{source: {source}, id: owner/Tiny{more}}}
engine: {{image: "vllm/vllm-openai:v0.11.0"}}
"""


def model_yaml(bench: Bench, more: str = "") -> tuple[Path, Deployment]:
    path = bench.root / "model.yaml"
    path.write_text(MODEL_YAML.format(source=bench.name, more=more))
    return path, load_deployment(path)


def run(bench: Bench, *words: str) -> str:
    done = CliRunner().invoke(command, [*words, "--store", str(bench.store.root)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def flip(pulled: Pulled, path: str = "model-1.safetensors") -> None:
    place = pulled.entry.weights() / path
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(bytes(data))


def changed_branch(bench: Bench) -> None:
    bench.files["config.json"] = b'{"architectures": ["Other"]}'
    bench.server.revisions["main"] = "e" * 40
    bench.server.files_asked.clear()
