"""The KV cache of published models: bytes a token, and what vLLM itself said it needs."""

from dataclasses import replace
from typing import Any

import pytest
from tests.published_models import (
    GEMMA_3_4B,
    GPT_OSS_120B,
    LLAMA_3_8B,
    MODELS,
    PHI_3_MINI,
    QWEN3_30B_A3B,
    Published,
)

from onprem_llm.planning.memory.architecture import read_architecture
from onprem_llm.planning.memory.kv_cache import Cache, cache_of
from onprem_llm.planning.memory.settings import Settings, settings_of
from onprem_llm.spec.deployment import Deployment, parse_deployment

GIB = 1024**3


def deployment(image: str = "vllm/vllm-openai:v0.32.0", **args: Any) -> Deployment:
    text = f"api_version: 1\nname: m\nmodel: ./m\nengine: {{image: '{image}', engine_args: {args}}}\n"
    text += "resources: {gpus: all}\n"
    return parse_deployment(text, "model.yaml")


def cache(config: dict[str, Any], tokens: int = 8192, image: str = "vllm/vllm-openai:v0.32.0", **args: Any) -> Cache:
    model = read_architecture(config)
    settings = settings_of(deployment(image, **args), model)
    return cache_of(model, settings, range(model.layers), tokens)


def settings(config: dict[str, Any], **args: Any) -> Settings:
    return settings_of(deployment(**args), read_architecture(config))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_bytes_a_token_are_the_published_ones(model: Published) -> None:
    assert cache(model.config).token_bytes == model.kv_bytes
    assert cache(model.config, kv_cache_dtype="fp8").token_bytes * 2 == model.kv_bytes


def test_there_are_enough_of_them_and_each_has_its_source() -> None:
    assert len({model.config["model_type"] for model in MODELS}) >= 12
    assert all(model.source for model in MODELS)


@pytest.mark.parametrize(
    ("config", "length", "gib", "more"),
    [
        # vllm#27508: vLLM 0.11, with the 1024 tokens a batch that the recipe for this model asks for.
        (GPT_OSS_120B, 131072, "4.54", {"tokens": 1024, "image": "vllm/vllm-openai:v0.11.0"}),
        # vllm#34076
        (QWEN3_30B_A3B, 262144, "24.00", {}),
        # tpu-inference#223, where Llama 3.1 8B is the default; its layers and heads are those of Llama 3.
        (LLAMA_3_8B, 131072, "16.00", {}),
    ],
)
def test_a_whole_request_takes_what_vllm_said(config: Any, length: int, gib: str, more: Any) -> None:
    assert f"{cache(config, **more).request_bytes(length) / GIB:.2f}" == gib


def test_blocks_are_those_that_vllm_said() -> None:
    """vllm#10517: 3.81 and 2.89 GiB were 1952 and 1478 blocks; the GiB are rounded to 0.005."""
    llama = cache(LLAMA_3_8B)
    for gib, blocks in ((3.81, 1952), (2.89, 1478)):
        low, high = (llama.blocks_in(int(value * GIB)) for value in (gib - 0.005, gib + 0.005))
        assert low <= blocks <= high
        assert high - low < blocks * 0.01


def test_the_longest_context_is_the_one_that_vllm_estimates() -> None:
    """vllm#34076: 3.18 GiB hold 34,736 tokens."""
    coder = cache(QWEN3_30B_A3B)
    assert coder.longest(int(3.175 * GIB), 262144) <= 34736 <= coder.longest(int(3.185 * GIB), 262144)


def test_layers_with_a_window_cost_no_more_than_their_window() -> None:
    gemma = cache(GEMMA_3_4B)
    assert (gemma.kept, gemma.windowed) == (5, 29)
    # 5 layers a group: one group of those that keep all, six of those with a window, filled up.
    assert gemma.groups == (1024,) * 6 + (0,)
    assert gemma.group_layers == 5
    longer = gemma.request_bytes(120_000) - gemma.request_bytes(60_000)
    assert longer == 5 * 2 * 4 * 256 * 2 * 60_000


def test_where_all_layers_have_a_window_a_request_stops_growing() -> None:
    phi = cache(PHI_3_MINI, tokens=512)
    assert phi.groups == (2047,)
    assert phi.request_bytes(4096) == phi.request_bytes(40_960) == 32 * 6144 * 2 * 16 * (-(-(2046 + 1024) // 16) + 1)


def test_kinds_of_layers_that_are_about_as_many_are_filled_up() -> None:
    """12 with a window and 13 without are two groups of 13 (kv_cache_utils.py says so of gpt-oss with a draft)."""
    kinds = ["sliding_attention", "full_attention"] * 12 + ["full_attention"]
    found = cache({**GPT_OSS_120B, "num_hidden_layers": 25, "layer_types": kinds})
    assert (found.group_layers, len(found.groups)) == (13, 2)


def test_before_the_hybrid_cache_windows_were_no_use() -> None:
    assert cache(GEMMA_3_4B, image="vllm/vllm-openai:v0.9.2").groups == (0,)
    assert cache(GEMMA_3_4B, disable_hybrid_kv_cache_manager=True).groups == (0,)


@pytest.mark.parametrize(("size", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1)])
def test_key_heads_are_split_and_then_repeated(size: int, heads: int) -> None:
    assert cache(LLAMA_3_8B, tensor_parallel_size=size).token_bytes == 32 * 2 * heads * 128 * 2


def test_a_latent_cache_is_on_every_gpu() -> None:
    deepseek = next(model for model in MODELS if model.name.endswith("DeepSeek-V3"))
    assert cache(deepseek.config, tensor_parallel_size=8).token_bytes == 70_272


def test_a_pipeline_has_its_layers_alone() -> None:
    model = read_architecture(GEMMA_3_4B)
    split = replace(settings(GEMMA_3_4B), pipeline=2)
    halves = [cache_of(model, split, stage, 2048) for stage in (range(17), range(17, 34))]
    assert [half.kept + half.windowed for half in halves] == [17, 17]
    assert halves[0].request_bytes(8192) < cache(GEMMA_3_4B).request_bytes(8192)


@pytest.mark.parametrize(
    "strange",
    [
        {"hybrid_override_pattern": "M-M*"}, {"mamba_d_state": 16}, {"num_kv_shared_layers": 20},
        {"index_topk": 2048}, {"attention_chunk_size": 8192}, {"compress_ratios": [4]},
    ],
)  # fmt: skip
def test_what_is_not_understood_is_not_counted(strange: dict[str, Any]) -> None:
    model = read_architecture({**LLAMA_3_8B, **strange})
    assert model.strange
    assert not model.attends
    assert cache({**LLAMA_3_8B, **strange}).request_bytes(8192) == 0


def test_linear_layers_keep_no_tokens() -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 8
    for more in ({"layer_types": kinds}, {"full_attention_interval": 4}):
        found = cache({**LLAMA_3_8B, **more})
        assert found.token_bytes == 8 * 2 * 8 * 128 * 2
        assert read_architecture({**LLAMA_3_8B, **more}).strange


@pytest.mark.parametrize(
    ("more", "length"),
    [
        ({}, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "max_position_embeddings": 131072}, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 16384),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, 131072),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096,
          "max_position_embeddings": 131072}, 4096),
        ({"max_position_embeddings": None}, 2048),
    ],
)  # fmt: skip
def test_the_context_that_nobody_named(more: dict[str, Any], length: int) -> None:
    assert settings({**LLAMA_3_8B, **more}).length == length


@pytest.mark.parametrize(("written", "length"), [(4096, 4096), ("'32k'", 32000), ("'32K'", 32768), ("null", 8192)])
def test_a_context_as_people_write_it(written: object, length: int) -> None:
    text = f"api_version: 1\nname: m\nmodel: ./m\nengine: {{image: 'a:1', engine_args: {{max_model_len: {written}}}}}\n"
    assert settings_of(parse_deployment(text, "x"), read_architecture(LLAMA_3_8B)).length == length


def test_the_cache_has_the_models_type_unless_it_is_named() -> None:
    assert settings(LLAMA_3_8B).kv_bytes == 2
    assert settings(LLAMA_3_8B, dtype="float32").kv_bytes == 4
    assert settings({**LLAMA_3_8B, "torch_dtype": "float32"}).kv_bytes == 2
    assert settings(LLAMA_3_8B, kv_cache_dtype="fp8_e5m2").kv_bytes == 1
    scheme = {"quantization_config": {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8}}}
    assert settings({**LLAMA_3_8B, **scheme}).kv_dtype == "fp8"
    # Of a type with scales that are not counted here nothing is said.
    assert settings(LLAMA_3_8B, kv_cache_dtype="nvfp4").kv_bytes is None


@pytest.mark.parametrize("written", ["auto", -1])
def test_a_context_that_the_engine_finds_itself_needs_no_more_than_is_of_use(written: object) -> None:
    assert settings(LLAMA_3_8B, max_model_len=written).length == 2048


def test_gpus_that_share_a_requests_tokens() -> None:
    one = cache(LLAMA_3_8B, tensor_parallel_size=8)
    two = cache(LLAMA_3_8B, tensor_parallel_size=8, decode_context_parallel_size=2)
    assert two.request_bytes(8192) * 2 == one.request_bytes(8192)


def test_an_encoder_keeps_nothing() -> None:
    assert cache({**LLAMA_3_8B, "model_type": "xlm-roberta"}).request_bytes(512) == 0


def test_config_json_with_nothing_in_it() -> None:
    model = read_architecture({})
    assert not model.attends
    assert read_architecture({"text_config": None, "num_hidden_layers": "many"}).layers == 0
