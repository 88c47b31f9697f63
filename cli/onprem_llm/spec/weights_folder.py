"""Look at a folder of weights before anything is sent: whole files, no pickles, a configuration."""

import json
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.output import human_bytes
from onprem_llm.spec.weights_identity import weights_files

# A safetensors file begins with the length of its JSON header, 8 bytes, little endian.
LENGTH_BYTES = 8
# The format allows 100 MB, which would take gigabytes of memory to read; real ones have less than 1 MB.
LARGEST_HEADER = 20_000_000

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json", "spiece.model")


def check_folder(folder: Path, allow: Collection[str] | None = ()) -> tuple[str, ...]:
    """Return warnings; InvalidError names every file that is wrong, what was found and expected.

    `allow` names the pickled files that may be served; None allows them all.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InvalidError(
            f"model: {folder}: found {found}, expected a folder of weights on this machine",
            hint="`model` is a path relative to the model.yaml that names it",
        )
    files = list(weights_files(folder))
    problems = [
        *_config_problems(folder),
        *_index_problems(folder, files),
        *(problem for file in files if file.suffix == ".safetensors" for problem in _safetensors_problems(file)),
        *_kind_problems(folder, files, allow),
    ]
    if problems:
        raise InvalidError(
            f"model: {folder}: these weights cannot be served",
            details="\n".join(f"  {problem}" for problem in problems),
            hint="fetch the files that are named again; nothing was sent",
        )
    if not any((folder / name).exists() for name in TOKENIZERS):
        return (f"{folder} has no tokenizer ({', '.join(TOKENIZERS[:3])}): the engine may not start",)
    return ()


def _config_problems(folder: Path) -> list[str]:
    config = folder / "config.json"
    if not config.is_file():
        return ["config.json is missing: this is not the folder of a model, or it did not arrive whole"]
    return [] if is_mapping(_json(config)) else ["config.json: expected a JSON object, found something else"]


def _kind_problems(folder: Path, files: list[Path], allow: Collection[str] | None) -> list[str]:
    suffixes = {file.suffix for file in files}
    if suffixes & {".safetensors", ".gguf"}:
        return []
    pickles = sorted(file.relative_to(folder).as_posix() for file in files if file.suffix in PICKLES)
    refused = [name for name in pickles if allow is not None and name not in allow]
    if refused:
        return [
            f"only pickled weights ({', '.join(refused[:3])}), which run code when they are read: use safetensors, or "
            "a model of a hub whose model.allow names these files"
        ]
    if pickles:
        return []
    return ["no weights: expected *.safetensors (or *.gguf)"]


def _index_problems(folder: Path, files: list[Path]) -> list[str]:
    problems = []
    for index in (file for file in files if file.name.endswith(".safetensors.index.json")):
        name = index.relative_to(folder).as_posix()
        value = _json(index)
        shards = value.get("weight_map") if is_mapping(value) else None
        if not is_mapping(shards):
            problems.append(f"{name}: expected a JSON object with weight_map")
            continue
        missing = sorted({str(shard) for shard in shards.values() if not (index.parent / str(shard)).is_file()})
        problems += [f"{name} names {shard}, which is missing" for shard in missing]
    return problems


def _safetensors_problems(file: Path) -> list[str]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(LENGTH_BYTES)
        if len(start) < LENGTH_BYTES:
            return [f"{file.name}: found {size} bytes, expected a safetensors file"]
        (length,) = struct.unpack("<Q", start)
        if length > LARGEST_HEADER or LENGTH_BYTES + length > size:
            return [f"{file.name}: truncated or no safetensors file (its header would be {human_bytes(length)} long)"]
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            return [f"{file.name}: its safetensors header is not JSON"]
    end = _end_of_data(header) if is_mapping(header) else None
    if end is None:
        return [f"{file.name}: its safetensors header names no tensors"]
    expected = LENGTH_BYTES + length + end
    if size != expected:
        what = "truncated" if size < expected else "too long"
        return [f"{file.name}: {what}: found {size} bytes, its header says {expected}"]
    return []


def _end_of_data(header: Mapping[str, object]) -> int | None:
    """Return the last byte that a tensor takes; None if an entry is not one. A file without tensors ends at 0."""
    end = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if is_mapping(tensor) else None
        if not is_list(offsets) or len(offsets) != 2 or not isinstance(offsets[1], int):
            return None
        end = max(end, offsets[1])
    return end


def _json(file: Path) -> object:
    try:
        value: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value
