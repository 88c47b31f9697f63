"""What a person is told of an image that cannot run somewhere."""

import pytest

from onprem_llm.planning.compatibility.machines import Machine, kind_of
from onprem_llm.planning.compatibility.numbers import Numbers, numbers_of
from onprem_llm.planning.compatibility.verdict import judge, nearest
from onprem_llm.planning.memory.model_files import ModelFiles

NOTHING = Numbers()
IMAGE = "vllm/vllm-openai:"


def machine(gpu: str, driver: str | None = "580.95.05", architecture: str = "x86_64") -> Machine:
    return Machine(architecture, driver, (kind_of(gpu),))


def said(on: Machine, ref: str, numbers: Numbers = NOTHING, *, forward: bool = False) -> tuple[str, str]:
    """Return the refusal and what to do."""
    verdict = judge(on, ref, numbers, forward=forward)
    text = "; ".join(one.text for one in verdict.refusals)
    return text, verdict.hint(nearest([on], ref, numbers)) if text else ""


def test_a_driver_from_before_the_images_cuda() -> None:
    """The sentence of issue 5; the variant of the same release is nearer than another release."""
    text, hint = said(machine("NVIDIA GeForce RTX 4090", "535.183.01"), f"{IMAGE}v0.20.0")
    assert text == "driver 535.183.01 cannot run vllm/vllm-openai:v0.20.0 (CUDA 13.0, driver >= 580.65.06)"
    assert hint == "use vllm/vllm-openai:v0.20.0-cu129, or upgrade the driver to 580 or newer"


def test_data_centre_gpus_have_a_third_way() -> None:
    text, hint = said(machine("NVIDIA H100 80GB HBM3", "535.183.01"), f"{IMAGE}v0.33.0")
    assert text.startswith("driver 535.183.01 cannot run")
    assert hint == (
        "use vllm/vllm-openai:v0.29.0-cu129, or upgrade the driver to 580 or newer; or set env: "
        '{VLLM_ENABLE_CUDA_COMPATIBILITY: "1"}, which data centre GPUs allow'
    )


@pytest.mark.parametrize(
    ("gpu", "driver", "image", "refused"),
    [
        ("NVIDIA H100", "535.183.01", "v0.20.2", False),
        ("NVIDIA H100", "570.86.15", "v0.20.2", False),
        ("NVIDIA H100", "550.54.14", "v0.20.2", True),  # no branch that the libraries know
        ("NVIDIA GeForce RTX 4090", "535.183.01", "v0.20.2", True),  # not for data centres
        ("NVIDIA H100", "535.183.01", "v0.16.0-cu130", True),  # from before there was the switch
    ],
)
def test_compatibility_libraries_that_are_switched_on(gpu: str, driver: str, image: str, refused: bool) -> None:
    verdict = judge(machine(gpu, driver), IMAGE + image, NOTHING, forward=True)
    assert bool(verdict.refusals) == refused
    if not refused:
        assert "compatibility libraries alone" in verdict.warnings[0]


def test_a_driver_of_the_right_major_runs_with_limits() -> None:
    verdict = judge(machine("NVIDIA H100", "535.183.01"), f"{IMAGE}v0.19.1", NOTHING)
    (text,) = verdict.warnings
    assert not verdict.refusals
    for part in ("older than CUDA 12.9", "unsupported toolchain", "driver 575 has", "VLLM_ENABLE_CUDA_COMPATIBILITY"):
        assert part in text
    (text,) = judge(machine("NVIDIA GeForce RTX 4090", "535.183.01"), f"{IMAGE}v0.19.1", NOTHING).warnings
    assert "VLLM_ENABLE" not in text


def test_a_driver_that_runs_nothing_of_this() -> None:
    text, hint = said(machine("Tesla T4", "470.256.02"), f"{IMAGE}v0.11.0")
    assert text == "driver 470.256.02 cannot run vllm/vllm-openai:v0.11.0 (CUDA 12.8, driver >= 525.60.13)"
    assert hint == "upgrade the driver to 525 or newer"


@pytest.mark.parametrize(
    ("gpu", "architecture", "image", "why", "instead"),
    [
        ("Tesla V100-SXM2-32GB", "x86_64", "v0.20.2", "CUDA 13 has left it behind", "v0.19.1"),
        ("Tesla V100-SXM2-32GB", "x86_64", "v0.20.2-cu129", "it is built for 7.5 8.0 8.6", "v0.19.1"),
        ("NVIDIA B200", "x86_64", "v0.8.5.post1", "it wants an image with CUDA 12.8 or newer, and this", "v0.9.2"),
        ("NVIDIA GB10", "aarch64", "v0.20.2-cu129", "wants an image with CUDA 13.0 or newer", "v0.20.2"),
        ("NVIDIA GB300", "aarch64", "v0.19.1", "wants an image with CUDA 13.0 or newer", "v0.19.1-cu130"),
        ("NVIDIA GeForce RTX 5090", "x86_64", "v0.7.3", "it wants an image with CUDA 12.8", "v0.9.2"),
        ("NVIDIA L4", "aarch64", "v0.11.0", "it is built for 8.7 9.0 10.0+PTX 12.0", "v0.14.1"),
        ("NVIDIA A100-SXM4-80GB", "aarch64", "v0.19.1", "it is built for 8.7 8.9", "v0.20.0"),
    ],
)
def test_a_gpu_that_the_image_has_no_code_for(gpu: str, architecture: str, image: str, why: str, instead: str) -> None:
    on = machine(gpu, "580.95.05", architecture)
    text, hint = said(on, IMAGE + image)
    assert text.startswith(f"{gpu} (compute capability ")
    assert why in text
    assert hint == f"use {IMAGE}{instead}"
    assert not judge(on, IMAGE + instead, NOTHING).refusals


def test_a_gpu_that_no_image_runs_on() -> None:
    text, hint = said(machine("Tesla P100-PCIE-16GB"), f"{IMAGE}v0.11.0")
    assert "compute capability 6.0" in text
    assert hint == "no image that is known here runs on these GPUs: choose other ones"


def test_an_image_of_the_other_architecture() -> None:
    text, hint = said(machine("NVIDIA H100"), f"{IMAGE}v0.20.2-aarch64-cu129")
    assert text == "vllm/vllm-openai:v0.20.2-aarch64-cu129 is an image for aarch64, and the host is x86_64"
    assert hint == "use vllm/vllm-openai:v0.20.2-cu129"


@pytest.mark.parametrize(
    "ref", [f"{IMAGE}v0.34.0", f"{IMAGE}nightly", "rayproject/ray-llm:2.60", "registry.local/ours/vllm:7"]
)
def test_what_is_not_known_is_not_judged_and_said(ref: str) -> None:
    verdict = judge(machine("Tesla T4", "470.1"), ref, NOTHING)
    assert verdict.refusals == ()
    assert verdict.warnings == (
        f"{ref} is not known here for x86_64: whether it runs under driver 470.1 on Tesla T4 was not judged",
    )


@pytest.mark.parametrize("driver", [None, "[N/A]", ""])
def test_a_driver_that_is_not_known_refuses_nothing(driver: str | None) -> None:
    verdict = judge(machine("NVIDIA GB10", driver, "aarch64"), f"{IMAGE}v0.20.2", NOTHING)
    assert verdict.refusals == ()
    assert "wants CUDA 13.0, driver >= 580.65.06; which driver the host has is not known" in verdict.warnings[0]
    assert judge(machine("Tesla V100", driver), f"{IMAGE}v0.20.2", NOTHING).refusals


def test_a_gpu_that_is_not_known_refuses_nothing() -> None:
    verdict = judge(machine("NVIDIA 10de:2330"), f"{IMAGE}v0.20.2", Numbers(dtype="bfloat16", quantization="fp8"))
    assert verdict.refusals == ()
    assert "its compute capability is not known here" in verdict.warnings[0]


def test_what_the_driver_says_of_a_gpu_counts_more_than_its_name() -> None:
    assert str(kind_of("Tesla T4", "9.0").capability) == "9.0"
    assert str(kind_of("Tesla T4", "[N/A]").capability) == "7.5"


def test_a_mirrored_image_stays_where_it_is() -> None:
    on = machine("NVIDIA GeForce RTX 4090", "535.183.01")
    ref = "registry.local:5000/hub/vllm/vllm-openai:v0.20.2-ubuntu2404@sha256:" + "0" * 64
    assert nearest([on], ref, NOTHING) == "registry.local:5000/hub/vllm/vllm-openai:v0.20.2-cu129-ubuntu2404"


@pytest.mark.parametrize(
    ("image", "numbers", "refused"),
    [
        ("v0.19.1", Numbers(dtype="bfloat16"), True),
        ("v0.7.3", Numbers(model_dtype="bfloat16"), True),
        ("v0.8.5.post1", Numbers(model_dtype="bfloat16"), True),
        ("v0.9.2", Numbers(model_dtype="bfloat16"), False),
        ("v0.7.3", Numbers(dtype="half", model_dtype="bfloat16"), False),
        ("v0.7.3", Numbers(model_dtype="float16"), False),
        ("v0.34.0", Numbers(dtype="bfloat16"), True),  # whatever the release: no engine of vLLM's does it
        ("v0.34.0", Numbers(model_dtype="bfloat16"), False),
    ],
)
def test_bfloat16_on_a_t4(image: str, numbers: Numbers, refused: bool) -> None:
    text, hint = said(machine("Tesla T4"), IMAGE + image, numbers)
    assert bool(text) == refused
    if refused:
        assert "Tesla T4 (compute capability 7.5) has no bfloat16" in text
        assert "set `dtype: half` in engine.engine_args" in hint
    assert not judge(machine("NVIDIA A10"), IMAGE + image, numbers).refusals


def test_auto_that_falls_back_is_said() -> None:
    (text,) = judge(machine("Tesla T4"), f"{IMAGE}v0.11.0", Numbers(model_dtype="bfloat16")).warnings
    assert text.endswith("and the model is in it: v0.11.0 computes in float16 there")


@pytest.mark.parametrize(
    ("gpu", "image", "method", "refused", "instead"),
    [
        ("Tesla T4", "v0.11.0", "fp8", True, "v0.14.1"),
        ("Tesla T4", "v0.19.1", "fp8", False, None),
        ("NVIDIA A100", "v0.11.0", "fp8", False, None),
        ("Tesla V100", "v0.19.1", "awq", True, None),
        ("Tesla T4", "v0.19.1", "awq", False, None),
        ("Tesla T4", "v0.19.1", "mxfp4", True, None),
        ("NVIDIA A100", "v0.19.1", "mxfp4", False, None),
        ("Tesla V100", "v0.19.1", "bitsandbytes", False, None),
        ("Tesla V100", "v0.19.1", "something-new", False, None),
    ],
)
def test_quantization_methods_have_minima(
    gpu: str, image: str, method: str, refused: bool, instead: str | None
) -> None:
    text, hint = said(machine(gpu), IMAGE + image, Numbers(quantization=method))
    assert bool(text) == refused
    if refused:
        assert f"cannot run quantization {method} under {image}" in text
        assert hint == (f"use {IMAGE}{instead}, or " if instead else "") + "take the model in another format"


@pytest.mark.parametrize(("gpu", "warned"), [("NVIDIA A100", True), ("NVIDIA L4", False), ("NVIDIA H100", False)])
def test_fp8_that_is_only_unpacked_is_said(gpu: str, warned: bool) -> None:
    warnings = judge(machine(gpu), f"{IMAGE}v0.19.1", Numbers(quantization="fp8")).warnings
    assert any("no arithmetic in fp8" in text for text in warnings) == warned


BF16_AWQ = {"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "AWQ"}}


@pytest.mark.parametrize(
    ("args", "config", "numbers"),
    [
        ({}, None, Numbers()),
        ({"dtype": "auto"}, BF16_AWQ, Numbers(None, "bfloat16", "awq")),
        ({"--dtype": "half", "quantization": "fp8"}, BF16_AWQ, Numbers("half", "bfloat16", "fp8")),
        ({"dtype": 3, "quantization": ""}, {}, Numbers()),
        ({}, {"dtype": "float16"}, Numbers(None, "float16")),
        ({}, {"text_config": BF16_AWQ}, Numbers(None, "bfloat16", "awq")),
        ({}, {"torch_dtype": None, "text_config": {"dtype": "bfloat16"}}, Numbers(None, "bfloat16")),
        ({}, {"torch_dtype": 16, "quantization_config": {"bits": 4}, "text_config": 3}, Numbers()),
        ({}, {"quantization_config": []}, Numbers()),
    ],
)
def test_flags_count_more_than_the_model(
    args: dict[str, object], config: dict[str, object] | None, numbers: Numbers
) -> None:
    assert numbers_of(args, None if config is None else ModelFiles(config, ())) == numbers
