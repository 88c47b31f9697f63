"""What a model's own files say, before anybody has looked at what it means."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

# Bytes of one element, by safetensors' names; formats below a byte are stored packed, as U8.
ELEMENT_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a safetensors header; `dtype` as the header names it (BF16)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds, as stored."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """config.json, and the tensors that an engine would load.

    `other_bytes` is the size of weights in files that have no such header (GGUF, pickles); `file_bytes` that of all
    files that an engine would read.
    """

    config: Mapping[str, object]
    tensors: tuple[Tensor, ...]
    other_bytes: int = 0
    file_bytes: int = 0
