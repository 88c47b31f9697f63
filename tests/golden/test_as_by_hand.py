"""examples/deepseek-r1-distill-1.5b.yaml against the command that people type, flag for flag."""

import shlex

import pytest
from cases import rendered

from onprem_llm import fast_yaml

BY_HAND = """
docker run -d --runtime nvidia --gpus all
  -v /data/DeepSeek-R1-Distill-Qwen-1.5B:/models/DeepSeek-R1-Distill-Qwen-1.5B --env HF_HUB_OFFLINE=1
  -p 12412:8000 --ipc=host vllm/vllm-openai:v0.7.3
  --model /models/DeepSeek-R1-Distill-Qwen-1.5B --served_model_name DeepSeek-R1-1.5B --max_model_len 2048
  --tensor-parallel-size 1 --dtype=half --gpu-memory-utilization=0.9
"""
IMAGE = "vllm/vllm-openai:v0.7.3"
MODULE = ["python3", "-m", "vllm.entrypoints.openai.api_server"]


def flags(words: list[str]) -> dict[str, str]:
    """Return flag -> value, spelled alike: argparse takes - and _, a space and = for the same."""
    found, name = {}, None
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            name = name.replace("_", "-")
            found[name] = value
        else:
            assert name, f"{word} belongs to no flag"
            found[name] = f"{found[name]} {word}".strip()
    return found


def service(case: str) -> dict:
    (text,) = rendered(case).values()
    return fast_yaml.read(text)["services"]["vllm"]


def by_hand() -> tuple[list[str], list[str]]:
    words = shlex.split(BY_HAND)
    at = words.index(IMAGE)
    return words[3:at], words[at + 1 :]


def test_every_flag_of_the_engine_and_no_other() -> None:
    typed = flags(by_hand()[1])
    typed["--served-model-name"] += " DeepSeek-R1-1.5B:r1"  # the gateway knows revisions by it
    assert flags(service("deepseek-old-image")["command"]) == typed


def test_the_newer_image_gets_the_same_flags_with_the_model_in_its_place() -> None:
    old = flags(service("deepseek-old-image")["command"])
    model, *rest = service("deepseek-new-image")["command"]
    assert {"--model": model, **flags(rest)} == old


@pytest.mark.parametrize(
    ("case", "entrypoint"), [("deepseek-old-image", MODULE), ("deepseek-new-image", ["vllm", "serve"])]
)
def test_the_entrypoint_is_explicit(case: str, entrypoint: list[str]) -> None:
    shell = ["/bin/sh", "-c", 'set -a; . /run/secrets/env; set +a; exec "$$@"', "sh"]
    assert service(case)["entrypoint"] == [*shell, *entrypoint]


def test_dockers_own_flags() -> None:
    docker, engine = by_hand()
    wanted = service("deepseek-old-image")
    assert docker == ["--runtime", "nvidia", "--gpus", "all", "-v", docker[5], "--env", "HF_HUB_OFFLINE=1",
                      "-p", "12412:8000", "--ipc=host"]  # fmt: skip
    assert wanted["runtime"] == "nvidia"
    devices = wanted["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert wanted["ipc"] == "host"
    assert wanted["environment"]["HF_HUB_OFFLINE"] == "1"
    assert wanted["ports"] == ["0.0.0.0:12412:8000"]
    (volume,) = wanted["volumes"]
    assert volume["target"] == docker[5].partition(":")[2] == flags(engine)["--model"]
    assert volume["read_only"] is True


def test_there_is_no_key_in_the_file() -> None:
    (text,) = rendered("deepseek-old-image").values()
    assert "api-key" not in text
    assert "API_KEY" not in text
