"""Made-up weights: the same bytes on each machine."""

import json
import random
import struct

_OF_ITS_OWN = 64_000_000


def noise(size: int, seed: int) -> bytes:
    """Return bytes that no packing makes smaller; from 64 MB on they repeat."""
    some = random.Random(seed).randbytes(min(size, _OF_ITS_OWN))  # noqa: S311
    return (some * (size // len(some) + 1))[:size] if size else b""


def safetensors(data: bytes) -> bytes:
    """Return a whole safetensors file with one tensor of these bytes."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + data


def random_safetensors(size: int, seed: int) -> bytes:
    return safetensors(noise(size, seed))
