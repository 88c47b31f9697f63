"""Read what a model's files say of themselves: config.json and the headers of safetensors files, never a tensor."""

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.planning.memory.model_files import ELEMENT_BYTES, ModelFiles, Tensor
from onprem_llm.spec.weights_folder import LARGEST_HEADER, LENGTH_BYTES
from onprem_llm.spec.weights_identity import weights_files

INDEX = "model.safetensors.index.json"
# Another copy of the same weights, as Mistral publishes them; an engine reads it only where there is nothing else.
_COPY = "consolidated"
OTHER = {".gguf", ".bin", ".pt", ".pth"}
# What training leaves beside the weights.
_NO_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler")
# One file may be a part of several; GGUF files that are not hold each the whole model, at another precision.
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")
# An index of 200,000 tensors, as models of hundreds of experts have, takes 20 MB.
_LARGEST_JSON = 10 * LARGEST_HEADER
# No tensor has more numbers, more dimensions, or ends further into a file.
_MOST, _MOST_DIMENSIONS = 10**15, 64


def read_model_files(folder: Path) -> ModelFiles:
    """Read a folder of weights; InvalidError names the file that cannot be read and what was expected."""
    config = _object(folder / "config.json", "a JSON object")
    found = [file for file in weights_files(folder) if file.parent == folder]
    shards = _loaded(folder, [file for file in found if file.suffix == ".safetensors"])
    tensors = _once(tensor for shard in shards for tensor in _tensors(shard))
    other_bytes = 0 if shards else _other_bytes([file for file in found if file.suffix in OTHER])
    return ModelFiles(config, tensors, other_bytes, sum(file.stat().st_size for file in shards) + other_bytes)


def _once(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Take each name once, the smaller where two files have it: a folder may hold the same model twice."""
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        known = found.get(tensor.name)
        if known is None or tensor.bytes < known.bytes:
            found[tensor.name] = tensor
    return tuple(found.values())


def _other_bytes(files: list[Path]) -> int:
    """Return the bytes of what an engine would load of files without headers: one GGUF model, or the pickles.

    Of several GGUF models the largest; of pickles of two kinds those that transformers writes (*.bin).
    """
    models: dict[str, int] = {}
    for file in files:
        if file.suffix == ".gguf":
            name = _PART.sub("", file.name)
            models[name] = models.get(name, 0) + file.stat().st_size
    if models:
        return max(models.values())
    pickles = [file for file in files if not file.name.startswith(_NO_WEIGHTS)]
    first = [file for file in pickles if file.suffix == ".bin"] or pickles
    return sum(file.stat().st_size for file in first)


def _loaded(folder: Path, files: list[Path]) -> list[Path]:
    """Return the files that vLLM loads: those that the index names, else all but a second copy."""
    if (folder / INDEX).is_file():
        named = _object(folder / INDEX, "a JSON object with weight_map").get("weight_map")
        shards = {str(shard) for shard in named.values()} if is_mapping(named) else set()
        files = [file for file in files if file.name in shards] or files
    first = [file for file in files if not file.name.startswith(_COPY)]
    return first or files


def _tensors(file: Path) -> Iterator[Tensor]:
    for name, value in _header(file).items():
        if name == "__metadata__":
            continue
        shape = value.get("shape") if is_mapping(value) else None
        offsets = value.get("data_offsets") if is_mapping(value) else None
        sizes, ends = _counts(shape, _MOST_DIMENSIONS), _counts(offsets, 2)
        readable = sizes is not None and prod(sizes) <= _MOST and ends is not None and len(ends) == 2
        if not is_mapping(value) or sizes is None or ends is None or not readable or ends[0] > ends[1]:
            raise _unreadable(file, f"no tensor under {name!r}", "a tensor's dtype, shape and data_offsets")
        dtype = str(value.get("dtype"))
        yield Tensor(name, dtype if dtype in ELEMENT_BYTES else "U8", sizes, ends[1] - ends[0])


def _counts(value: object, most: int) -> tuple[int, ...] | None:
    """Return a list of `most` whole numbers or fewer, each as small as a file's can be; None for anything else."""
    if not is_list(value) or len(value) > most:
        return None
    found = tuple(one for one in value if isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= _MOST)
    return found if len(found) == len(value) else None


def _header(file: Path) -> Mapping[str, object]:
    with file.open("rb") as stream:
        start = stream.read(LENGTH_BYTES)
        length = struct.unpack("<Q", start)[0] if len(start) == LENGTH_BYTES else LARGEST_HEADER + 1
        if length > LARGEST_HEADER:
            raise _unreadable(file, "no header", "a safetensors file")
        text = stream.read(length)
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise _unreadable(file, "a header that is not JSON", "a safetensors file") from None
    if not is_mapping(value):
        raise _unreadable(file, "a header that is no object", "a safetensors file")
    return value


def _object(file: Path, expected: str) -> Mapping[str, object]:
    try:
        if file.stat().st_size > _LARGEST_JSON:
            raise _unreadable(file, f"more than {_LARGEST_JSON} bytes", expected)
        value: object = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unreadable(file, "nothing", expected) from None
    except (ValueError, RecursionError):
        raise _unreadable(file, "something that is not JSON", expected) from None
    if not is_mapping(value):
        raise _unreadable(file, "something else", expected)
    return value


def _unreadable(file: Path, found: str, expected: str) -> InvalidError:
    return InvalidError(
        f"{file}: found {found}, expected {expected}",
        hint="fetch the file again: onprem-llm weights pull --verify MODEL, or copy it anew",
    )
