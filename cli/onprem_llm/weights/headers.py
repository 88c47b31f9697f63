"""Read what a model's files say of themselves: config.json and the headers of safetensors files, never a tensor."""

import json
import struct
from collections.abc import Iterator, Mapping
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


def read_model_files(folder: Path) -> ModelFiles:
    """Read a folder of weights; InvalidError names the file that cannot be read and what was expected."""
    config = _object(folder / "config.json", "a JSON object")
    found = [file for file in weights_files(folder) if file.parent == folder]
    shards = _loaded(folder, [file for file in found if file.suffix == ".safetensors"])
    tensors = tuple(tensor for shard in shards for tensor in _tensors(shard))
    others = [] if shards else [file for file in found if file.suffix in OTHER]
    other_bytes = sum(file.stat().st_size for file in others)
    return ModelFiles(config, tensors, other_bytes, sum(file.stat().st_size for file in shards) + other_bytes)


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
        if not is_mapping(value) or not is_list(shape) or not _two_numbers(offsets):
            raise _unreadable(file, f"no tensor under {name!r}", "a tensor's dtype, shape and data_offsets")
        dtype = str(value.get("dtype"))
        sizes = tuple(size for size in shape if isinstance(size, int))
        begin, end = (int(str(one)) for one in offsets) if is_list(offsets) else (0, 0)
        yield Tensor(name, dtype if dtype in ELEMENT_BYTES else "U8", sizes, end - begin)


def _two_numbers(value: object) -> bool:
    return is_list(value) and len(value) == 2 and all(isinstance(one, int) for one in value)


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
