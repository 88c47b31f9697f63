"""engine_args as a command line, and text that Compose must not read as anything else."""

import pytest
import yaml

from onprem_llm.rendering.compose import published, to_yaml, user_text
from onprem_llm.rendering.flags import flags
from onprem_llm.rendering.vllm import starts_with_module


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"max_model_len": 2048}, ["--max-model-len", "2048"]),
        ({"max-model-len": 2048}, ["--max-model-len", "2048"]),
        ({"--max-model-len": 2048}, ["--max-model-len", "2048"]),
        ({"gpu_memory_utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"tool_call_parser": None}, []),
        ({"allowed_origins": ["a", "b"]}, ["--allowed-origins", "a", "b"]),
        ({"allowed_origins": []}, []),
        ({"lora_modules": [{"name": "a"}]}, ["--lora-modules", '{"name": "a"}']),
        ({"hf_overrides": {"b": [1, None], "a": "é"}}, ["--hf-overrides", '{"a": "é", "b": [1, null]}']),
        ({"hf_overrides.rope_type": "x_y"}, ["--hf-overrides.rope_type", "x_y"]),
        ({"chat_template": "{{ x }}"}, ["--chat-template", "{{ x }}"]),
        ({"chat_template": "--x"}, ["--chat-template=--x"]),
        ({"seed": -1}, ["--seed=-1"]),
        ({"b": 1, "a": 2}, ["--a", "2", "--b", "1"]),
    ],
)
def test_flags(args: dict[str, object], line: list[str]) -> None:
    assert flags(args) == line


@pytest.mark.parametrize(
    ("image", "old"),
    [
        ("vllm/vllm-openai:v0.7.3", True),
        ("registry.local:5000/vllm/vllm-openai:v0.10.2", True),
        ("vllm/vllm-openai:v0.11.0", False),
        ("vllm/vllm-openai:v0.20.0-cu129", False),
        ("vllm/vllm-openai:nightly", False),
        ("onprem-llm/vllm-cpu:0.7.0", False),
    ],
)
def test_which_images_start_with_the_module(image: str, old: bool) -> None:
    assert starts_with_module(image) is old


@pytest.mark.parametrize(
    "text",
    ["yes", "on", "no", "true", "null", "~", "1e3", "012", "0x1f", "1:30", "2026-11-21", "=", "<<", "a: b", "- x", "#c",
     "", " ", "é 世界 🙂", "a\nb", "tab\t", "'", '"', "\\", "{{ x }}", "*a", "&a", "!x",
     "%x", "@x", "`x", "--flag", "a b:"],
)  # fmt: skip
def test_text_stays_text_for_every_reader(text: str) -> None:
    written = to_yaml({"value": [text]})
    assert yaml.safe_load(written) == {"value": [text]}
    plain = written.partition("- ")[2].strip()
    assert plain[0] == '"' or plain.replace("-", "").isalpha()


def test_a_dollar_of_the_users_is_no_interpolation() -> None:
    assert user_text("$HOME ${X} $$") == "$$HOME $${X} $$$$"


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert published("fd00::1", 1, 2) == "[fd00::1]:1:2"
