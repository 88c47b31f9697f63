"""Files that nobody meant: whatever stands in them, they are judged, not judged, or named; never a traceback."""

import json
from pathlib import Path

import pytest
from tests.made_models import files_of, tensor, write_headers
from tests.published_models import LLAMA_3_8B

from onprem_llm.errors import InvalidError
from onprem_llm.planning.memory.changes import remedies
from onprem_llm.planning.memory.judge import GpuKind, subject_of, sum_of
from onprem_llm.planning.memory.words import sum_lines
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.weights.headers import read_model_files

L4 = GpuKind("NVIDIA L4", 23034 * 1024**2)
ODD = [
    "1e999",
    "-1e999",
    "NaN",
    "20000000000",
    "1" + "0" * 30,
    "1" + "0" * 400,
    "-8",
    "true",
    '"x"',
    "[]",
    "0",
    "1e-320",
]
KEYS = ["num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
        "max_position_embeddings", "sliding_window", "intermediate_size", "kv_lora_rank", "sliding_window_pattern",
        "num_experts_per_tok", "full_attention_interval"]  # fmt: skip


def judged(folder: Path, config: str) -> tuple[int, int]:
    (folder / "config.json").write_text(config)
    write_headers(folder / "model.safetensors", files_of({**LLAMA_3_8B, "num_hidden_layers": 2}).tensors)
    text = "api_version: 1\nname: m\nmodel: ./m\nengine: {image: 'v/vllm:v0.32.0', engine_args: {PP}}\n"
    for args in ("", "pipeline_parallel_size: 2"):
        deployed = parse_deployment(text.replace("PP", args) + "resources: {gpus: all}\n", "model.yaml")
        subject = subject_of(read_model_files(folder), deployed)
        total = sum_of(subject, L4)
        assert list(sum_lines(total, subject))
        remedies(subject, L4, 8)
    return subject.model.layers, subject.settings.length


def write(values: dict[str, str]) -> str:
    known = {key: json.dumps(value) for key, value in LLAMA_3_8B.items()}
    return "{" + ", ".join(f'"{key}": {value}' for key, value in {**known, **values}.items()) + "}"


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("key", KEYS)
def test_odd_numbers_count_as_not_said(tmp_path: Path, key: str, odd: str) -> None:
    layers, length = judged(tmp_path, write({key: odd}))
    assert layers == (0 if key == "num_hidden_layers" else 32)
    assert 0 < length <= 10**12


@pytest.mark.parametrize("kind", ["linear", "yarn", "dynamic"])
@pytest.mark.parametrize("odd", [*ODD, "-4.0", "0.0"])
def test_odd_factors_stretch_nothing(tmp_path: Path, kind: str, odd: str) -> None:
    scaling = f'{{"rope_type": "{kind}", "factor": {odd}, "original_max_position_embeddings": 4096}}'
    _, length = judged(tmp_path, write({"rope_scaling": scaling}))
    assert 0 < length <= 10**12
    if odd not in {"20000000000", "1e-320"}:
        assert length == 8192


def test_a_number_too_long_to_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"config\.json: found"):
        judged(tmp_path, write({"hidden_size": "1" + "0" * 5000}))


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ("[1]", "[false, true]"),
        ("[1]", "[2, 1]"),
        ("[1]", "[-1, 1]"),
        ("[1]", "[0, 1e999]"),
        ("[1]", "[0, 1" + "0" * 400 + "]"),
        ("[1]", "[0, 1, 2]"),
        ("[true]", "[0, 1]"),
        ("[-1]", "[0, 1]"),
        ("[NaN]", "[0, 1]"),
        ("[" + ", ".join(["1000000000"] * 40) + "]", "[0, 1]"),
    ],
)
def test_odd_headers_are_named(tmp_path: Path, shape: str, offsets: str) -> None:
    entry = f'{{"a": {{"dtype": "BF16", "shape": {shape}, "data_offsets": {offsets}}}}}'
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(len(entry).to_bytes(8, "little") + entry.encode())
    with pytest.raises(InvalidError, match=r"model\.safetensors: found no tensor under 'a'"):
        read_model_files(tmp_path)


def test_a_layer_of_a_number_that_no_model_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(write({}))
    write_headers(tmp_path / "model.safetensors", (tensor(f"model.layers.{'9' * 5000}.up.weight", "BF16", 2, 2),))
    deployed = parse_deployment(
        "api_version: 1\nname: m\nmodel: ./m\nengine: {image: 'v/vllm:v0.32.0'}\n", "model.yaml"
    )
    assert subject_of(read_model_files(tmp_path), deployed).weights.bytes == 8


def test_a_tensor_that_two_files_have_counts_once_as_the_smaller(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_headers(tmp_path / "model.fp32.safetensors", (tensor("a", "F32", 8), tensor("b", "F32", 8)))
    write_headers(tmp_path / "model.safetensors", (tensor("a", "BF16", 8),))
    assert {one.name: one.bytes for one in read_model_files(tmp_path).tensors} == {"a": 16, "b": 32}


@pytest.mark.parametrize(
    ("sizes", "counted"),
    [
        ({"m-Q4.gguf": 40, "m-Q8.gguf": 80, "mmproj.gguf": 5}, 80),
        ({"m-Q8-00001-of-00002.gguf": 40, "m-Q8-00002-of-00002.gguf": 50, "m-Q4.gguf": 60}, 90),
        ({"pytorch_model-00001-of-00002.bin": 7, "pytorch_model-00002-of-00002.bin": 8, "consolidated.00.pth": 15}, 15),
        ({"pytorch_model.bin": 7, "optimizer.pt": 14, "training_args.bin": 1, "scheduler.pt": 1}, 7),
        ({"consolidated.00.pth": 15, "consolidated.01.pth": 15}, 30),
    ],
)
def test_of_files_without_headers_one_model_counts(tmp_path: Path, sizes: dict[str, int], counted: int) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert read_model_files(tmp_path).other_bytes == counted
