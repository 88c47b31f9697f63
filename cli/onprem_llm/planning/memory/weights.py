"""Weights on each GPU: which tensors vLLM splits, which it repeats, and which it does not load."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from onprem_llm.planning.memory.architecture import DTYPES, Architecture
from onprem_llm.planning.memory.model_files import ELEMENT_BYTES, ModelFiles, Tensor
from onprem_llm.planning.memory.settings import Settings

# How a tensor is laid over the GPUs of a stage. `keys`: keys and values, by heads; `fused`: those with the queries.
Part = Literal["whole", "split", "keys", "fused", "experts"]
# A layer's number, or where in the pipeline the rest is; `words`: the embeddings, at both ends where they are tied.
Place = int | Literal["words", "first", "last"]

_FLOATS = {"F32", "F16", "BF16"}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer|block)\.(\d{1,9})\.")
_TOWER = re.compile(r"(?:^|\.)(?:vision|visual|vit|image|audio|speech|mm_|multi_modal|multimodal|aligner|projector)")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|tok_embeddings|embedding)\.weight$")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output)\.(?:weight|qweight|weight_packed)$")
_REPEATED = re.compile(r"\.(?:gate|router|shared_expert_gate|q_a_proj|kv_a_proj_with_mqa|kv_a_proj)\.[^.]+$")
_KEYS = re.compile(r"\.(?:k_proj|v_proj|key|value)\.[^.]+$")
_FUSED = re.compile(r"\.(?:qkv_proj|query_key_value|c_attn|Wqkv|qkv)\.[^.]+$")
_EXPERTS = re.compile(r"\.experts\.")
_LAST = re.compile(r"(?:^|\.)(?:norm|ln_f|final_layernorm)\.")
_UNUSED = re.compile(r"rotary_emb\.inv_freq$|(?:^|\.)mtp\.|\.masked_bias$")
# What `quantization` makes of weights while they load: bytes of one weight of a linear layer. NF4 has a 32-bit scale
# for 64 weights. FOUR_BITS is no method: a checkpoint of AWQ or GPTQ, with a 16-bit scale and a 4-bit zero for 128.
FOUR_BITS = "4 bits"
MADE_ON_LOADING = {"fp8": 1.0, "bitsandbytes": 0.5 + 4 / 64, "experts_int8": 1.0, FOUR_BITS: 0.5 + 2.5 / 128}


@dataclass(frozen=True, slots=True)
class Weights:
    """What an engine loads, by place and part; `left_out` is in the files and is not loaded."""

    parts: Mapping[tuple[Place, Part], float]
    left_out: int
    evenly: int  # bytes of files that do not say what they hold

    @property
    def bytes(self) -> int:
        """All that is loaded, once."""
        return round(sum(self.parts.values())) + self.evenly

    def on_gpu(self, model: Architecture, settings: Settings, stage: int) -> int:
        """Return the bytes on each GPU of a pipeline stage."""
        here = set(stage_layers(model.layers, stage, settings.pipeline))
        last = stage == settings.pipeline - 1
        total = self.evenly / (settings.tensor * settings.pipeline)
        for (place, part), size in self.parts.items():
            first = place in {"words", "first"} and stage == 0
            if place in here or first or (last and (place == "last" or (place == "words" and model.tied))):
                total += size * _share(part, model, settings)
        return max(0, round(total) - settings.offloaded)


@dataclass(frozen=True, slots=True)
class _Named:
    """What a tensor's name says of it; `layer` is no tower's."""

    layer: int | None
    tower: bool
    embedding: bool
    head: bool
    last: bool
    repeated: bool
    experts: bool
    keys: bool
    fused: bool
    unused: bool


# A model has up to some hundred thousand names, and they are asked for again with each size that is tried.
@lru_cache(maxsize=1 << 18)
def _named(name: str) -> _Named:
    layer, tower = _LAYER.search(name), _TOWER.search(name) is not None
    said = [
        one.search(name) is not None for one in (_EMBEDDING, _HEAD, _LAST, _REPEATED, _EXPERTS, _KEYS, _FUSED, _UNUSED)
    ]
    return _Named(int(layer[1]) if layer and not tower else None, tower, *said)


def weights_of(files: ModelFiles, model: Architecture, settings: Settings) -> Weights:
    """Sum the tensors up as an engine with these settings holds them."""
    parts: dict[tuple[Place, Part], float] = defaultdict(float)
    left_out = 0
    embedded = any(_named(tensor.name).embedding for tensor in files.tensors)
    for tensor in files.tensors:
        if _not_loaded(tensor, model, embedded=embedded):
            left_out += tensor.bytes
            continue
        place, part = _place(tensor, model), _part(tensor)
        parts[place, part] += _loaded_bytes(tensor, part, model, settings)
    return Weights(dict(parts), left_out, files.other_bytes)


def stage_layers(layers: int, stage: int, stages: int) -> range:
    """Return the layers of a pipeline stage; what is left over goes to the last but one and those before it."""
    sizes = [layers // stages] * stages
    for number in range(layers % stages):
        sizes[-(number + 2)] += 1
    begin = sum(sizes[:stage])
    return range(begin, begin + sizes[stage])


def _not_loaded(tensor: Tensor, model: Architecture, *, embedded: bool) -> bool:
    named = _named(tensor.name)
    if named.unused or (model.tied and embedded and named.head):
        return True
    # DeepSeek's files end with layers for speculation, which nobody loads unasked.
    return named.layer is not None and 0 < model.layers <= named.layer


def _place(tensor: Tensor, model: Architecture) -> Place:
    named = _named(tensor.name)
    if named.layer is not None and model.layers:
        return named.layer
    if named.embedding:
        return "words"
    return "last" if named.head or named.last else "first"


def _part(tensor: Tensor) -> Part:
    named = _named(tensor.name)
    if len(tensor.shape) < 2 or named.repeated:
        return "whole"
    if named.experts:
        return "experts"
    if len(tensor.shape) > 3:  # what cuts an image into patches
        return "whole"
    if named.tower:
        return "split"
    if named.keys:
        return "keys"
    return "fused" if named.fused else "split"


def _loaded_bytes(tensor: Tensor, part: Part, model: Architecture, settings: Settings) -> float:
    if model.quantization or tensor.dtype not in _FLOATS:
        return tensor.bytes
    # A method that is not known here counts as the smallest: too much would refuse what runs.
    made = MADE_ON_LOADING.get(settings.quantization, min(MADE_ON_LOADING.values())) if settings.quantization else None
    named = _named(tensor.name)
    linear = part != "whole" and not (named.embedding or named.head or named.tower)
    if made is not None and linear and (part == "experts" or settings.quantization != "experts_int8"):
        return tensor.elements * made
    return tensor.bytes * DTYPES[settings.dtype] / ELEMENT_BYTES[tensor.dtype]


def _share(part: Part, model: Architecture, settings: Settings) -> float:
    size = settings.tensor
    if part == "whole":
        return 1.0
    if part == "experts":
        # Over all of them, with and without enable_expert_parallel (vLLM: flatten_tp_across_dp_and_pcp).
        return 1 / (size * settings.data)
    if part == "split" or not model.kv_heads:
        return 1 / size
    keys = max(1, model.kv_heads // size)
    if part == "keys":
        return keys / model.kv_heads
    return (model.heads / size + 2 * keys) / (model.heads + 2 * model.kv_heads)
