"""Weights as hubs publish them, without a tensor in them: names, types and shapes from a config.json."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onprem_llm.planning.memory.model_files import ELEMENT_BYTES, ModelFiles, Tensor

Shape = tuple[str, str, tuple[int, ...]]


def tensor(name: str, dtype: str, *shape: int) -> Tensor:
    size = ELEMENT_BYTES[dtype]
    for length in shape:
        size *= length
    return Tensor(name, dtype, shape, size)


def tensors_of(config: Mapping[str, Any], dtype: str = "BF16") -> tuple[Tensor, ...]:
    """Return the tensors of a decoder such as Llama, Qwen, Mistral, Mixtral, Phi-3 or gpt-oss."""
    layers = range(config["num_hidden_layers"])
    found = [
        *_ends(config, dtype),
        *(one for layer in layers for one in _layer(config, f"model.layers.{layer}", dtype)),
    ]
    return tuple(found)


def files_of(config: Mapping[str, Any], dtype: str = "BF16") -> ModelFiles:
    tensors = tensors_of(config, dtype)
    return ModelFiles(dict(config), tensors, 0, sum(one.bytes for one in tensors))


def write_model(folder: Path, config: Mapping[str, Any], *, shards: int = 1, dtype: str = "BF16") -> Path:
    """Write whole files with holes in place of the numbers: they take no room."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    tensors = tensors_of(config, dtype)
    names = (
        ["model.safetensors"]
        if shards == 1
        else [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    )
    for number, name in enumerate(names):
        write_headers(folder / name, tensors[number::shards])
    if shards > 1:
        index = {one.name: names[number % shards] for number, one in enumerate(tensors)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def write_headers(file: Path, tensors: tuple[Tensor, ...]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for one in tensors:
        header[one.name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [end, end + one.bytes]}
        end += one.bytes
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)


def _ends(config: Mapping[str, Any], dtype: str) -> Iterator[Tensor]:
    words, hidden = config["vocab_size"], config["hidden_size"]
    yield tensor("model.embed_tokens.weight", dtype, words, hidden)
    yield tensor("model.norm.weight", dtype, hidden)
    if not config.get("tie_word_embeddings"):
        yield tensor("lm_head.weight", dtype, words, hidden)


def _layer(config: Mapping[str, Any], at: str, dtype: str) -> Iterator[Tensor]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv, width = config["num_key_value_heads"], config.get("head_dim") or hidden // heads
    kind = config["model_type"]
    if kind == "phi3":
        yield tensor(f"{at}.self_attn.qkv_proj.weight", dtype, (heads + 2 * kv) * width, hidden)
    for name, many in (("q", heads), ("k", kv), ("v", kv)) if kind != "phi3" else ():
        yield tensor(f"{at}.self_attn.{name}_proj.weight", dtype, many * width, hidden)
        if kind in {"qwen2", "gpt_oss"}:
            yield tensor(f"{at}.self_attn.{name}_proj.bias", dtype, many * width)
        if kind.startswith("qwen3") and name != "v":
            yield tensor(f"{at}.self_attn.{name}_norm.weight", dtype, width)
    yield tensor(f"{at}.self_attn.o_proj.weight", dtype, hidden, heads * width)
    yield tensor(f"{at}.input_layernorm.weight", dtype, hidden)
    yield tensor(f"{at}.post_attention_layernorm.weight", dtype, hidden)
    yield from (_mxfp4_experts if kind == "gpt_oss" else _experts if "num_local_experts" in config else _mlp)(
        config, at, dtype
    )


def _mlp(config: Mapping[str, Any], at: str, dtype: str) -> Iterator[Tensor]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    if config["model_type"] == "phi3":
        yield tensor(f"{at}.mlp.gate_up_proj.weight", dtype, 2 * inner, hidden)
    else:
        yield tensor(f"{at}.mlp.gate_proj.weight", dtype, inner, hidden)
        yield tensor(f"{at}.mlp.up_proj.weight", dtype, inner, hidden)
    yield tensor(f"{at}.mlp.down_proj.weight", dtype, hidden, inner)


def _experts(config: Mapping[str, Any], at: str, dtype: str) -> Iterator[Tensor]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    yield tensor(f"{at}.block_sparse_moe.gate.weight", dtype, config["num_local_experts"], hidden)
    for expert in range(config["num_local_experts"]):
        for name, shape in (("w1", (inner, hidden)), ("w2", (hidden, inner)), ("w3", (inner, hidden))):
            yield tensor(f"{at}.block_sparse_moe.experts.{expert}.{name}.weight", dtype, *shape)


def _mxfp4_experts(config: Mapping[str, Any], at: str, dtype: str) -> Iterator[Tensor]:
    hidden, inner, many = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    yield tensor(f"{at}.self_attn.o_proj.bias", dtype, hidden)
    yield tensor(f"{at}.self_attn.sinks", dtype, config["num_attention_heads"])
    yield tensor(f"{at}.mlp.router.weight", dtype, many, hidden)
    yield tensor(f"{at}.mlp.router.bias", dtype, many)
    for name, rows, columns in (("gate_up_proj", 2 * inner, hidden), ("down_proj", hidden, inner)):
        # 32 numbers of 4 bits have one scale of 8.
        yield tensor(f"{at}.mlp.experts.{name}_blocks", "U8", many, rows, columns // 32, 16)
        yield tensor(f"{at}.mlp.experts.{name}_scales", "U8", many, rows, columns // 32)
        yield tensor(f"{at}.mlp.experts.{name}_bias", dtype, many, rows)
