"""Sums and verdicts, and the changes that make a model fit: each really does, and nothing smaller would."""

from dataclasses import replace
from typing import Any

import pytest
from tests.made_models import files_of
from tests.published_models import GEMMA_3_4B, GPT_OSS_120B, LLAMA_3_8B, MODELS

from onprem_llm.hosts import Gpu
from onprem_llm.planning.memory.changes import STEP, remedies
from onprem_llm.planning.memory.hosts import kind_of
from onprem_llm.planning.memory.judge import GpuKind, Subject, Sum, subject_of, sum_of
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.planning.memory.overhead import CPU
from onprem_llm.planning.memory.words import remedy_line, sum_lines
from onprem_llm.spec.deployment import parse_deployment

GIB = 1024**3
MIB = 1024**2
H100 = GpuKind("NVIDIA H100 80GB HBM3", 81559 * MIB)
L4 = GpuKind("NVIDIA L4", 23034 * MIB)
RTX_3090 = GpuKind("NVIDIA GeForce RTX 3090", 24576 * MIB)
LLAMA_31_8B = {**LLAMA_3_8B, "max_position_embeddings": 131072}
LLAMA_70B = next(model for model in MODELS if model.name.endswith("Llama-3-70B")).config


def subject(
    config: Any, requests: int = 1, image: str = "vllm/vllm-openai:v0.32.0", more: str = "resources: {gpus: all}",
    **args: Any,
) -> Subject:  # fmt: skip
    text = f"api_version: 1\nname: m\nmodel: ./m\nengine: {{image: '{image}', engine_args: {args}}}\n{more}\n"
    files = ModelFiles(config, (), 8 * GIB, 8 * GIB) if "text_config" in config else files_of(config)
    return subject_of(files, parse_deployment(text, "model.yaml"), requests)


def total(config: Any, kind: GpuKind = H100, **more: Any) -> Sum:
    return sum_of(subject(config, **more), kind)


def test_every_term_is_in_the_sum() -> None:
    found = total(LLAMA_3_8B)
    assert found.weights == 16_060_522_496
    assert found.kv_cache == 8192 * 131072
    assert found.needed == found.weights + found.kv_cache + found.libraries + found.activations + found.graphs
    assert found.budget == round((H100.memory - found.driver) * 0.92)
    assert found.left == found.budget - found.needed
    assert found.answer == "fits"
    assert found.at_once == pytest.approx(1 + found.left / found.kv_cache, rel=0.001)


def test_what_a_real_engine_had_left() -> None:
    """vllm#10517: Llama 3.1 8B on an RTX 3090, vLLM 0.6: 20,000 tokens left 3.81 GiB for the cache, 29,000 2.89."""
    for tokens, gib in ((20_000, 3.81), (29_000, 2.89)):
        found = total(
            LLAMA_31_8B, RTX_3090, image="vllm/vllm-openai:v0.6.4", max_model_len=tokens, max_num_batched_tokens=tokens,
        )  # fmt: skip
        assert found.kv_room / GIB == pytest.approx(gib, abs=0.15)
    assert found.answer != "fits"  # as vLLM found: 29,000 tokens need 3.54 GiB


@pytest.mark.parametrize(("image", "share"), [("vllm/vllm-openai:v0.11.0", 0.9), ("registry.lan/vllm-cpu:0.32.0", 0.92),
                                              ("registry.lan/own:1", 0.92)])  # fmt: skip
def test_the_share_that_nobody_named_is_the_releases(image: str, share: float) -> None:
    assert total(LLAMA_3_8B, image=image).share == share
    assert total(LLAMA_3_8B, image=image, gpu_memory_utilization=0.5).share == 0.5


def test_graphs_count_where_vllm_counts_them() -> None:
    assert total(LLAMA_3_8B).graphs > 0
    assert total(LLAMA_3_8B, enforce_eager=True).graphs == 0
    assert total(LLAMA_3_8B, image="vllm/vllm-openai:v0.11.0").graphs == 0


def test_more_requests_want_more_cache() -> None:
    assert total(LLAMA_3_8B, requests=4).kv_cache == 4 * total(LLAMA_3_8B).kv_cache


def test_a_cache_that_was_set_aside() -> None:
    found = total(LLAMA_3_8B, kv_cache_memory_bytes=8 * GIB)
    assert found.needed - found.weights - found.activations - found.libraries - found.graphs == 8 * GIB
    assert found.answer == "fits"
    assert total(LLAMA_3_8B, kv_cache_memory_bytes=GIB // 2).answer == "no"


def test_no_only_by_what_is_counted() -> None:
    """Estimates of ours must refuse nothing that would run."""
    exact = total(LLAMA_3_8B).weights + total(LLAMA_3_8B).kv_cache
    just = GpuKind("a GPU", round(exact / 0.92) + 2)
    assert total(LLAMA_3_8B, just).answer == "tight"
    assert total(LLAMA_3_8B, replace(just, memory=just.memory - 100)).answer == "no"


def test_an_engine_wants_its_share_free() -> None:
    used = replace(H100, free=60 * GIB)
    found = sum_of(subject(LLAMA_3_8B), used)
    assert found.answer == "no"
    assert found.held_by_others
    first = remedies(subject(LLAMA_3_8B), used, 1)[0]
    assert first.args == {"gpu_memory_utilization": 0.75}
    assert total(LLAMA_3_8B, used, **first.args).answer == "fits"


def check(config: Any, kind: GpuKind, most: int, **more: Any) -> list[str]:
    """Return what the changes set; each must fit when it is made, but a variant of the model."""
    found = remedies(subject(config, **more), kind, most)
    for remedy in found:
        if remedy.other_weights is None:
            assert total(config, kind, **{**more, **remedy.args}).answer == "fits", remedy
            assert remedy.left == total(config, kind, **{**more, **remedy.args}).left
    return [",".join(remedy.args) or "variant" for remedy in found]


def test_changes_come_in_the_order_in_which_they_disturb() -> None:
    """Llama 3.1 8B with 131,072 tokens on an L4: 16 GiB of weights, and 16 of cache."""
    assert total(LLAMA_31_8B, L4).answer == "no"
    assert check(LLAMA_31_8B, L4, 8) == [
        "max_model_len", "tensor_parallel_size", "tensor_parallel_size", "tensor_parallel_size"
    ]  # fmt: skip
    assert check(LLAMA_31_8B, L4, 1)[0] == "max_model_len"


def test_a_shorter_context_is_the_longest_that_fits() -> None:
    (first, *_) = remedies(subject(LLAMA_31_8B), L4, 1)
    length = first.args["max_model_len"]
    assert isinstance(length, int)
    assert length % STEP == 0
    assert total(LLAMA_31_8B, L4, max_model_len=length).answer == "fits"
    assert total(LLAMA_31_8B, L4, max_model_len=length + STEP).answer != "fits"


def gpu(name: str, mib: int) -> GpuKind:
    """Return a kind as it is known from what a host says of a GPU."""
    found = kind_of(Gpu(0, "GPU-0", name, mib, 0, None, ()))
    assert found is not None
    return found


L40 = gpu("NVIDIA L40", 40960)


def test_an_fp8_cache_where_that_is_enough() -> None:
    assert check(LLAMA_31_8B, L40, 1, requests=2)[:2] == ["max_model_len", "kv_cache_dtype"]


@pytest.mark.parametrize("name", ["NVIDIA A100-PCIE-40GB", "NVIDIA A40", "Tesla T4", "a GPU that nobody knows"])
def test_no_fp8_cache_on_a_gpu_that_is_not_known_to_have_it(name: str) -> None:
    """Less is needed then on each of them, and the engine would not start, or it is not known whether it would."""
    assert "kv_cache_dtype" not in check(LLAMA_31_8B, gpu(name, 40960), 1, requests=2)


@pytest.mark.parametrize(("tag", "proposed"), [("v0.33.0", True), ("v0.11.0", True), ("v0.10.2", False)])
def test_an_fp8_cache_is_proposed_for_releases_that_are_known_to_have_it(tag: str, proposed: bool) -> None:
    found = check(LLAMA_31_8B, L40, 1, requests=2, image=f"vllm/vllm-openai:{tag}")
    assert ("kv_cache_dtype" in found) == proposed


def test_an_fp8_cache_on_cpus() -> None:
    host, more = GpuKind(CPU, 40 * GIB, 40 * GIB), "resources: {gpus: 0}"
    new = check(LLAMA_31_8B, host, 0, requests=2, more=more, image="vllm/vllm-openai-cpu:v0.32.0")
    old = check(LLAMA_31_8B, host, 0, requests=2, more=more, image="vllm/vllm-openai-cpu:v0.19.1")
    assert ("kv_cache_dtype" in new, "kv_cache_dtype" in old) == (True, False)


def test_more_gpus_where_the_weights_alone_are_too_much() -> None:
    assert check(LLAMA_70B, H100, 8) == [*["tensor_parallel_size"] * 3, "variant"]
    (first, *_) = remedies(subject(LLAMA_70B), H100, 8)
    assert (first.args, first.gpus) == ({"tensor_parallel_size": 2}, 2)
    assert "resources.gpus: 2" in remedy_line(first)


def test_layers_over_gpus_whose_number_does_not_divide_the_heads() -> None:
    """Three of 80 GB hold Llama 3 70B, and no tensor parallel size of up to three does."""
    found = remedies(subject(LLAMA_70B), H100, 3)
    assert [remedy.args for remedy in found if remedy.gpus] == [{"tensor_parallel_size": 2}]
    odd = {**LLAMA_70B, "num_attention_heads": 63, "num_key_value_heads": 7, "head_dim": 128}
    (first, *_) = remedies(subject(odd), H100, 3)
    assert (first.args, first.gpus) == ({"pipeline_parallel_size": 2}, 2)
    assert total(odd, H100, pipeline_parallel_size=2).answer == "fits"
    assert total(odd, H100, pipeline_parallel_size=2).left == first.left
    assert not any(remedy.gpus for remedy in remedies(subject({**odd, "num_hidden_layers": 1}), L4, 8))
    # Behind a tensor parallel size that is there already: 2 x 2 of the smaller ones.
    twice = remedies(subject(LLAMA_70B, tensor_parallel_size=2), GpuKind("a GPU", 48 * GIB), 6)
    assert next(remedy.gpus for remedy in twice if remedy.gpus) == 4


def test_only_sizes_that_divide_the_heads_and_that_are_there() -> None:
    odd = {**LLAMA_70B, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 128, "hidden_size": 8192}
    assert [remedy.args.get("tensor_parallel_size") for remedy in remedies(subject(odd), H100, 8)][:2] == [2, 4]
    assert 8 not in [remedy.args.get("tensor_parallel_size") for remedy in remedies(subject(odd), H100, 8)]
    assert check(LLAMA_70B, H100, 1) == ["variant"]


def test_a_variant_says_how_much_its_weights_take() -> None:
    (variant,) = remedies(subject(LLAMA_70B), H100, 1)
    assert variant.other_weights is not None
    ends = 2 * 128256 * 8192 * 2  # in 16 bits, as all quantised models have them
    assert variant.other_weights == pytest.approx(ends + (141_107_412_992 - ends) / 2, rel=0.0001)
    # Less than 8 bits are asked for only where 8 do not do.
    (smaller,) = remedies(subject(LLAMA_70B), GpuKind("a GPU", 60 * GIB), 1)
    assert smaller.other_weights == pytest.approx(ends + (141_107_412_992 - ends) / 2 * (0.5 + 2.5 / 128), rel=0.0001)
    assert not remedies(subject(LLAMA_70B), L4, 1)


@pytest.mark.parametrize(("tag", "eight"), [("v0.19.1", True), ("v0.11.0", False)])
def test_a_variant_that_the_gpu_does_not_run_is_not_proposed(tag: str, eight: bool) -> None:
    """Turing runs weights in fp8 from v0.14.1 on."""
    turing = gpu("Quadro RTX 8000", 46080)
    model = {**LLAMA_70B, "num_hidden_layers": 36}
    (variant,) = remedies(subject(model, image=f"vllm/vllm-openai:{tag}", max_model_len=4096), turing, 1)
    assert ("8-bit" in variant.what, "4-bit" in variant.what) == (eight, not eight)


def test_a_variant_with_a_shorter_context_where_that_alone_does() -> None:
    long = {**LLAMA_70B, "max_position_embeddings": 32768}
    (variant,) = remedies(subject(long), GpuKind("a GPU", 48 * GIB), 1)
    assert set(variant.args) == {"max_model_len"}
    assert "4-bit weights (awq, gptq) and a context of " in remedy_line(variant)


def test_two_changes_where_one_is_not_enough() -> None:
    long = {**LLAMA_70B, "max_position_embeddings": 131072}
    found = remedies(subject(long), GpuKind("NVIDIA A100-SXM4-80GB", 81920 * MIB), 2)
    assert {"tensor_parallel_size", "max_model_len"} == set(found[0].args)
    assert check(long, GpuKind("NVIDIA A100-SXM4-80GB", 81920 * MIB), 2)[0] == "tensor_parallel_size,max_model_len"


def test_what_is_quantised_already_is_no_variant() -> None:
    assert check(GPT_OSS_120B, GpuKind("NVIDIA L40S", 46068 * MIB), 1) == []
    assert "tensor_parallel_size" in check(GPT_OSS_120B, GpuKind("NVIDIA L40S", 46068 * MIB), 4)[0]


def test_the_first_stage_that_is_too_full_speaks_for_all() -> None:
    piped = subject(LLAMA_70B, pipeline_parallel_size=2)
    one = sum_of(piped, H100)
    assert one.weights == max(piped.weights.on_gpu(piped.model, piped.settings, stage) for stage in (0, 1))


def test_a_model_whose_cache_is_not_known_is_judged_by_its_weights() -> None:
    strange = {**LLAMA_3_8B, "hybrid_override_pattern": "M*"}
    found = total(strange)
    assert (found.kv_cache, found.answer) == (0, "fits")
    assert any("not counted: state-space layers" in line for line in sum_lines(found, subject(strange)))
    assert total(strange, GpuKind("T4", 15360 * MIB)).answer == "no"


def test_the_sum_is_shown_term_by_term_and_adds_up() -> None:
    found = total(LLAMA_31_8B, L4)
    lines = list(sum_lines(found, subject(LLAMA_31_8B)))
    rows = {line.strip().split("  ")[0]: line for line in lines}
    values = {
        name: int(line[len(name) + 2 :].strip()[: 19 + 30].split("  ")[0].replace(" ", ""))
        for name, line in rows.items()
    }
    names = ["weights", "KV cache", "activations", "CUDA, libraries", "CUDA graphs"]
    assert values["the engine may take"] + sum(values[name] for name in names) == values["missing"] == found.left
    assert "131072 tokens, 131072 bytes each, bfloat16" in rows["KV cache"]
    assert [name for name, line in rows.items() if "estimated" in line] == names[2:]


def test_windows_are_said() -> None:
    lines = "\n".join(sum_lines(total(GEMMA_3_4B), subject(GEMMA_3_4B)))
    assert "29 of 34 layers keep a window" in lines


def test_an_engine_on_cpus_has_what_its_variable_says() -> None:
    env = "resources: {gpus: 0}\nenv: {VLLM_CPU_KVCACHE_SPACE: 2}"
    found = total(LLAMA_3_8B, GpuKind(CPU, 64 * GIB, 60 * GIB), more=env)
    assert found.kv_taken == 2 * GIB
    assert (found.driver, found.graphs, found.answer) == (0, 0, "fits")
    assert total(LLAMA_31_8B, GpuKind(CPU, 64 * GIB, 60 * GIB), more=env).answer == "no"
