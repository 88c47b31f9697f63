"""Weights on each GPU, against what the files of published models hold."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.made_models import files_of, tensor, write_headers, write_model
from tests.published_models import DEEPSEEK_V3, GEMMA_3_4B, LLAMA_3_8B, MODELS, PHI_3_MINI

from onprem_llm.errors import InvalidError
from onprem_llm.planning.memory.judge import Subject, subject_of
from onprem_llm.planning.memory.model_files import ModelFiles, Tensor
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.weights.headers import read_model_files

# metadata.total_size of each model.safetensors.index.json on the hub.
TOTAL_SIZE = {
    "meta-llama/Meta-Llama-3-8B": 16_060_522_496,
    "meta-llama/Meta-Llama-3-70B": 141_107_412_992,
    "Qwen/Qwen2.5-7B": 15_231_233_024,
    "Qwen/Qwen3-8B": 16_381_470_720,
    "mistralai/Mistral-7B-v0.1": 14_483_464_192,
    "mistralai/Mixtral-8x7B-v0.1": 93_405_585_408,
    "openai/gpt-oss-20b": 13_761_264_768,
}
CONFIGS: Mapping[str, dict[str, Any]] = {model.name: model.config for model in MODELS}
TINY = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 512, "torch_dtype": "bfloat16"}  # fmt: skip


def subject(files: ModelFiles, **args: Any) -> Subject:
    text = f"api_version: 1\nname: m\nmodel: ./m\nengine: {{image: 'vllm/vllm-openai:v0.32.0', engine_args: {args}}}\n"
    if args.get("tensor_parallel_size", 1) * args.get("pipeline_parallel_size", 1) > 1:
        text += "resources: {gpus: all}\n"
    return subject_of(files, parse_deployment(text, "model.yaml"))


def on_gpu(found: Subject, stage: int = 0) -> int:
    return found.weights.on_gpu(found.model, found.settings, stage)


@pytest.mark.parametrize("name", TOTAL_SIZE)
def test_all_that_the_files_hold_is_loaded(name: str) -> None:
    found = subject(files_of(CONFIGS[name]))
    assert found.weights.bytes == pytest.approx(TOTAL_SIZE[name], rel=0.0001)
    assert on_gpu(found) == found.weights.bytes


def test_what_vllm_said_it_took() -> None:
    """vllm#10517: 14.9888 GiB of Llama 3.1 8B."""
    assert subject(files_of(LLAMA_3_8B)).weights.bytes == pytest.approx(14.9888 * 1024**3, rel=0.005)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_gpus_share_the_weights_but_not_norms(size: int) -> None:
    found = subject(files_of(LLAMA_3_8B), tensor_parallel_size=size)
    norms = (32 * 2 + 1) * 4096 * 2
    assert on_gpu(found) == pytest.approx((16_060_522_496 - norms) / size + norms, abs=1)


def test_keys_are_repeated_where_there_are_more_gpus_than_key_heads() -> None:
    keys = 4 * 2 * 32 * 64 * 2
    norms = 9 * 64 * 2
    whole = subject(files_of(TINY)).weights.bytes
    split = subject(files_of(TINY), tensor_parallel_size=4)
    assert on_gpu(split) == (whole - norms - keys) / 4 + keys / 2 + norms


def test_queries_and_keys_in_one_tensor() -> None:
    split = subject(files_of(PHI_3_MINI), tensor_parallel_size=4)
    norms = (32 * 2 + 1) * 3072 * 2
    assert on_gpu(split) == pytest.approx((split.weights.bytes - norms) / 4 + norms, abs=1)
    fewer = {**PHI_3_MINI, "num_key_value_heads": 2}
    split = subject(files_of(fewer), tensor_parallel_size=4)
    fused = 36 * 96 * 3072 * 2 * 32
    assert on_gpu(split) == pytest.approx(
        (split.weights.bytes - norms - fused) / 4 + norms + fused * (8 + 2) / 36, abs=1
    )


def test_experts_are_split_the_router_is_not() -> None:
    config = {**TINY, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    split = subject(files_of(config), tensor_parallel_size=2)
    whole = (4 * 4 * 64 + 9 * 64) * 2
    assert on_gpu(split) == (split.weights.bytes - whole) / 2 + whole


def test_packed_experts_are_split() -> None:
    config = CONFIGS["openai/gpt-oss-20b"]
    split = subject(files_of(config), tensor_parallel_size=2)
    assert on_gpu(split) == pytest.approx(13_761_264_768 / 2, rel=0.002)


def test_stages_of_a_pipeline_and_their_ends() -> None:
    found = subject(files_of(TINY), pipeline_parallel_size=2)
    ends = 512 * 64 * 2
    layers = (found.weights.bytes - 2 * ends - 64 * 2) / 2
    assert [on_gpu(found, stage) for stage in (0, 1)] == [layers + ends, layers + ends + 64 * 2]


def test_layers_that_are_left_over_go_to_the_stages_before_the_last() -> None:
    found = subject(files_of({**TINY, "num_hidden_layers": 7}), pipeline_parallel_size=3)
    assert [on_gpu(found, stage) for stage in range(3)][1] > on_gpu(found, 0) - 512 * 64 * 2


def test_tied_embeddings_are_held_once_and_at_both_ends_of_a_pipeline() -> None:
    tied = {**TINY, "tie_word_embeddings": True}
    embedding = 512 * 64 * 2
    once = subject(files_of(tied))
    assert on_gpu(once) == subject(files_of(TINY)).weights.bytes - embedding
    # In the file all the same: it is not loaded a second time.
    files = files_of(tied)
    doubled = replace(files, tensors=(*files.tensors, tensor("lm_head.weight", "BF16", 512, 64)))
    assert subject(doubled).weights.bytes == once.weights.bytes
    assert subject(doubled).weights.left_out == embedding
    piped = subject(files, pipeline_parallel_size=2)
    assert on_gpu(piped, 0) + on_gpu(piped, 1) == once.weights.bytes + embedding


def test_layers_for_speculation_are_not_loaded() -> None:
    tensors = (
        tensor("model.layers.60.mlp.experts.0.up_proj.weight", "F8_E4M3", 2048, 7168),
        tensor("model.layers.60.mlp.experts.0.up_proj.weight_scale_inv", "F32", 16, 56),
        tensor("model.layers.61.mlp.experts.0.up_proj.weight", "F8_E4M3", 2048, 7168),
        tensor("model.layers.60.self_attn.kv_a_proj_with_mqa.weight", "F8_E4M3", 576, 7168),
    )
    found = subject(ModelFiles(DEEPSEEK_V3, tensors), tensor_parallel_size=8)
    assert found.weights.left_out == 2048 * 7168
    assert on_gpu(found) == round((2048 * 7168 + 16 * 56 * 4) / 8 + 576 * 7168)


def test_the_layers_of_an_eye_are_not_the_texts() -> None:
    """Gemma 3 has 27 layers in its eye and 34 in its text; the 27 must be on the first stage, all of them."""
    eye = tuple(
        tensor(f"vision_tower.vision_model.encoder.layers.{n}.mlp.fc1.weight", "BF16", 64, 64) for n in range(40)
    )
    text = tuple(tensor(f"language_model.model.layers.{n}.mlp.up_proj.weight", "BF16", 64, 64) for n in range(34))
    found = subject(ModelFiles(GEMMA_3_4B, (*eye, *text)), pipeline_parallel_size=2)
    assert found.weights.left_out == 0
    assert [on_gpu(found, stage) for stage in (0, 1)] == [(40 + 17) * 8192, 17 * 8192]


@pytest.mark.parametrize(
    ("stored", "args", "share"),
    [
        ("F32", {}, 0.5),
        ("F32", {"dtype": "float32"}, 1),
        ("BF16", {"dtype": "float32"}, 2),
        ("F16", {"dtype": "half"}, 1),
    ],
)
def test_weights_take_the_type_that_serves(stored: str, args: dict[str, Any], share: float) -> None:
    files = files_of({**TINY, "torch_dtype": "float32" if stored == "F32" else "bfloat16"}, stored)
    assert subject(files, **args).weights.bytes == files.file_bytes * share


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I32", "U8"])
def test_quantised_weights_stay_as_the_files_have_them(dtype: str) -> None:
    for method in ("fp8", "awq", "gptq", "compressed-tensors", "bitsandbytes"):
        config = {**TINY, "quantization_config": {"quant_method": method}}
        tensors = (
            tensor("model.layers.0.mlp.up_proj.qweight", dtype, 64, 64),
            tensor("model.layers.0.mlp.up_proj.scales", "F16", 2, 64),
            tensor("model.layers.0.mlp.up_proj.weight_scale_inv", "F32", 2, 2),
        )
        assert subject(ModelFiles(config, tensors)).weights.bytes == sum(one.bytes for one in tensors)


@pytest.mark.parametrize(("method", "bytes_each"), [("fp8", 1), ("bitsandbytes", 0.5625)])
def test_weights_that_are_quantised_while_they_load(method: str, bytes_each: float) -> None:
    files = files_of(TINY)
    ends = 2 * 512 * 64 * 2 + 9 * 64 * 2
    linear = (files.file_bytes - ends) / 2
    assert subject(files, quantization=method).weights.bytes == ends + linear * bytes_each


def test_a_method_that_is_not_known_refuses_nothing() -> None:
    assert (
        subject(files_of(TINY), quantization="new").weights.bytes
        < subject(files_of(TINY), quantization="bitsandbytes").weights.bytes
    )


def test_weights_that_stay_in_the_hosts_memory() -> None:
    found = subject(files_of(LLAMA_3_8B), cpu_offload_gb=10)
    assert on_gpu(found) == 16_060_522_496 - 10 * 1024**3
    assert on_gpu(subject(files_of(LLAMA_3_8B), cpu_offload_gb=20)) == 0


@pytest.mark.parametrize("written", [{"num_hidden_layers": 2}, '{"num_hidden_layers": 2}'])
def test_what_overrides_config_json(written: Any) -> None:
    found = subject(files_of(TINY), hf_overrides=written)
    assert found.model.layers == 2
    assert found.weights.left_out > 0
    nested = subject(ModelFiles(GEMMA_3_4B, ()), hf_overrides={"text_config": {"sliding_window": 512}})
    assert (nested.model.layers, max(filter(None, nested.model.windows))) == (34, 512)


def test_files_without_headers_are_shared_evenly() -> None:
    found = subject(ModelFiles(TINY, (), 1000, 1000), tensor_parallel_size=2)
    assert (found.weights.bytes, on_gpu(found)) == (1000, 500)


def test_headers_are_read_and_nothing_else(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "Llama", LLAMA_3_8B, shards=4)
    files = read_model_files(folder)
    assert subject(files).weights.bytes == 16_060_522_496
    on_disk = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert on_disk == pytest.approx(16_060_522_496, rel=0.001)
    assert files.file_bytes == on_disk


def test_a_second_copy_is_not_counted(tmp_path: Path) -> None:
    """Mistral publishes consolidated.safetensors beside the shards; gpt-oss a folder `original`."""
    folder = write_model(tmp_path / "m", TINY, shards=2)
    before = read_model_files(folder)
    copy: tuple[Tensor, ...] = (tensor("output.weight", "BF16", 512, 64),)
    write_headers(folder / "consolidated.safetensors", copy)
    (folder / "original").mkdir()
    write_headers(folder / "original" / "model.safetensors", copy)
    assert read_model_files(folder) == before
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "config.json").write_text("{}")
    write_headers(alone / "consolidated.safetensors", copy)
    assert read_model_files(alone).tensors == copy


def test_gguf_counts_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "m.gguf").write_bytes(b"x" * 321)
    assert read_model_files(tmp_path).other_bytes == 321


@pytest.mark.parametrize("content", [b"", b"\0" * 4, b"\2\0\0\0\0\0\0\0[]", b"\1\0\0\0\0\0\0\0x", b"\xff" * 40])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InvalidError, match=r"model\.safetensors: found"):
        read_model_files(tmp_path)


@pytest.mark.parametrize("entry", ['{"a": 1}', '{"a": {"dtype": "BF16", "shape": [1]}}'])
def test_a_header_without_tensors_is_named(tmp_path: Path, entry: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(len(entry).to_bytes(8, "little") + entry.encode())
    with pytest.raises(InvalidError, match="no tensor under 'a'"):
        read_model_files(tmp_path)


@pytest.mark.parametrize("text", ["[]", "x", None])
def test_a_config_that_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidError, match=r"config\.json: found"):
        read_model_files(tmp_path)
