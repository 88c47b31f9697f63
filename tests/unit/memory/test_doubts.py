"""What is not known for sure refuses nothing: flags that are not counted, files that do not say what they hold."""

import json
from typing import Any

import pytest
from tests.made_models import files_of
from tests.published_models import LLAMA_3_8B

from onprem_llm.planning.memory.judge import GpuKind, Subject, Sum, subject_of, sum_of
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.spec.deployment import parse_deployment

GIB = 1024**3
T4 = GpuKind("Tesla T4", 15360 * 1024**2)
MIXTRAL = {
    **LLAMA_3_8B, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 2,
}  # fmt: skip


def subject(files: ModelFiles, args: dict[str, Any]) -> Subject:
    engine = json.dumps({"image": "vllm/vllm-openai:v0.32.0", "engine_args": args})
    text = f"api_version: 1\nname: m\nmodel: ./m\nengine: {engine}\n"
    return subject_of(files, parse_deployment(text + "resources: {gpus: all}\n", "model.yaml"))


def total(args: dict[str, Any], kind: GpuKind = T4, files: ModelFiles | None = None) -> Sum:
    return sum_of(subject(files or files_of(LLAMA_3_8B), args), kind)


def test_nothing_said_is_no_doubt() -> None:
    assert (total({}).answer, total({}).doubt) == ("no", None)


@pytest.mark.parametrize(
    "args",
    [
        {"offload_backend": "prefetch", "offload_group_size": 8},
        {"offload-group-size": 8},
        {"--offload-num-in-group": 2},
        {"cpu_offload_params": ["gate_up_proj"]},
        {"offload_config.backend": "uva"},
        {"cpu_offload_gb": "a lot"},
        {"gpu_memory_utilization": "most"},
        {"prefill_context_parallel_size": 2},
    ],
)
def test_a_flag_that_is_not_counted_refuses_nothing(args: dict[str, Any]) -> None:
    found = total(args)
    assert found.answer == "tight"
    assert "not counted" in str(found.doubt)


@pytest.mark.parametrize(
    "args", [{"cpu_offload_gb": 0}, {"offload_backend": None}, {"prefill-context-parallel-size": 1}]
)
def test_a_flag_that_changes_nothing_is_no_doubt(args: dict[str, Any]) -> None:
    assert total(args).answer == "no"


@pytest.mark.parametrize("flag", ["cpu_offload_gb", "cpu-offload-gb", "--cpu-offload-gb"])
@pytest.mark.parametrize("value", [10, 10.0, "10", "10.0"])
def test_numbers_are_read_as_text_too(flag: str, value: object) -> None:
    assert total({flag: value}).weights == 16_060_522_496 - 10 * GIB
    assert total({"gpu_memory_utilization": "0.5"}).share == 0.5


@pytest.mark.parametrize("odd", ["nan", "inf", "-2", "9" * 400, 10**400, True, float("nan"), float("inf"), []])
def test_numbers_beyond_measure_are_not_understood(odd: object) -> None:
    deployed = parse_deployment(
        "api_version: 1\nname: m\nmodel: ./m\nengine: {image: 'v/vllm:v0.32.0'}\nresources: {gpus: all}\n", "model.yaml"
    )
    names = ("cpu_offload_gb", "gpu_memory_utilization", "max_model_len", "tensor_parallel_size", "max_num_seqs",
             "pipeline_parallel_size", "data_parallel_size", "block_size", "kv_cache_memory_bytes")  # fmt: skip
    for name in names:
        engine = deployed.engine.model_copy(update={"engine_args": {name: odd}})
        found = sum_of(subject_of(files_of(LLAMA_3_8B), deployed.model_copy(update={"engine": engine})), T4)
        assert (found.weights, found.length, found.share) == (16_060_522_496, 8192, 0.92)
        assert found.answer == ("tight" if name in names[:2] else "no")


@pytest.mark.parametrize("split", [True, False])
def test_experts_are_spread_over_data_parallel_engines_too(split: bool) -> None:
    """vLLM flattens tensor, data and context parallel for experts, whether or not they are given whole to GPUs."""
    args = {"tensor_parallel_size": 2, "enable_expert_parallel": split}
    one, two = subject(files_of(MIXTRAL), args), subject(files_of(MIXTRAL), {**args, "data_parallel_size": 2})
    experts = 2 * 8 * 3 * 4096 * 14336 * 2
    less = one.weights.on_gpu(one.model, one.settings, 0) - two.weights.on_gpu(two.model, two.settings, 0)
    assert less == experts / 4


def test_file_sizes_alone_refuse_nothing() -> None:
    files = ModelFiles(LLAMA_3_8B, (), 400 * GIB, 400 * GIB)
    assert total({}, files=files).answer == "tight"
    assert total({}, T4, ModelFiles(LLAMA_3_8B, (), GIB, GIB)).answer == "fits"


def test_layers_that_are_not_known_are_not_laid_over_a_pipeline() -> None:
    config = {**LLAMA_3_8B, "num_hidden_layers": None}
    files = ModelFiles(config, files_of(LLAMA_3_8B).tensors)
    assert total({"pipeline_parallel_size": 2}, files=files).answer == "tight"


def test_too_little_set_aside_with_a_doubt_says_how_much_is_missing() -> None:
    found = total({"kv_cache_memory_bytes": GIB // 2, "offload_backend": "uva"}, GpuKind("H100", 80 * GIB))
    assert (found.answer, found.left > 0, found.missing) == ("tight", True, GIB // 2)
