"""Which files of a repository are fetched: weights that are only data, and the texts beside them."""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.spec.model_source import ModelSource
from onprem_llm.weights.hubs.hub import HubFile
from onprem_llm.weights.names import name_problems

WEIGHTS = {".safetensors", ".gguf"}
# Formats that run code when they are read, or that no engine here reads.
PICKLED = {
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".hdf5", ".msgpack", ".joblib", ".npz", ".npy", ".ot",
    ".pdparams", ".keras", ".nemo", ".mar",
}  # fmt: skip
CODE = {".py", ".pyc", ".so", ".dll", ".sh", ".js"}
TEXTS = {
    ".json", ".jsonl", ".txt", ".md", ".model", ".tiktoken", ".jinja", ".yaml", ".yml", ".vocab", ".bpe", ".spm",
}  # fmt: skip
LEGAL = ("LICENSE", "LICENCE", "NOTICE", "COPYING", "README")
# A name alone is no proof: LICENSE-weights.bin is a pickle.
DOCUMENTS = {"", ".md", ".txt", ".rst", ".pdf"}
# A configuration may name code, and is read whole for that; real ones have some kilobytes.
LARGEST_CONFIG = 16_000_000


@dataclass(slots=True)
class Choice:
    """The files that are fetched, and those left behind by why."""

    files: list[HubFile] = field(default_factory=list)
    pickled: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    # What the specification itself leaves out is not worth a word.
    unasked: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Size of all files that are fetched."""
        return sum(file.size for file in self.files)

    def notes(self) -> list[str]:
        """Say what was left behind without being asked for."""
        kinds = (
            ("pickled weights beside safetensors", self.pickled),
            ("code", self.code),
            ("other files", self.others),
        )
        return [f"left out: {what}: {_some(names)}" for what, names in kinds if names]


def choose(source: ModelSource, listed: Sequence[HubFile]) -> Choice:
    """Choose among the files of a repository; InvalidError where it holds nothing that may be fetched."""
    problems = name_problems([file.path for file in listed])
    if problems:
        raise InvalidError(
            f"{source}: the hub names files that must not be written: {'; '.join(problems[:5])}",
            hint="nothing was fetched; tell the owner of the repository, and use another",
        )
    _check_patterns(source, [file.path for file in listed])
    choice = Choice()
    for file in listed:
        _place(source, file, choice)
    if not any(_suffix(file.path) in WEIGHTS | PICKLED for file in choice.files):
        raise _no_weights(source, choice)
    large = [file.path for file in choice.files if file.path.endswith("config.json") and file.size > LARGEST_CONFIG]
    if large:
        raise InvalidError(
            f"{source}: {_some(large)}: larger than {LARGEST_CONFIG // 1_000_000} MB, too large for a configuration",
            hint="nothing was fetched; leave it out (model.exclude), or use another repository",
        )
    unhashed = [f.path for f in choice.files if not (f.sha256 or f.git_sha1) and _suffix(f.path) not in TEXTS]
    if unhashed:
        raise InvalidError(
            f"{source}: the hub gives no hash for {_some(unhashed)}", hint="what cannot be checked is not fetched"
        )
    return choice


def _check_patterns(source: ModelSource, paths: Sequence[str]) -> None:
    for pattern in source.include:
        if not any(matches(path, (pattern,)) for path in paths):
            raise InvalidError(f"{source}: include: {pattern!r} matches no file", hint="mend model.include")
    for name in source.allow:
        if name not in paths and "--" not in name:
            raise InvalidError(
                f"{source}: allow: {name!r} is not in the repository",
                hint="allow takes the names of files as the repository has them, no patterns",
            )


def _place(source: ModelSource, file: HubFile, choice: Choice) -> None:
    suffix = _suffix(file.path)
    if any(part.startswith(".") for part in file.path.split("/")):
        return  # The folder's own hidden files never travel to a host.
    if (source.include and not matches(file.path, source.include)) or matches(file.path, source.exclude):
        choice.unasked.append(file.path)
    elif suffix in WEIGHTS | TEXTS or file.path in source.allow or _is_legal(file.path):
        choice.files.append(file)
    elif suffix in PICKLED:
        choice.pickled.append(file.path)
    elif suffix in CODE:
        choice.code.append(file.path)
    else:
        choice.others.append(file.path)


def _no_weights(source: ModelSource, choice: Choice) -> InvalidError:
    if choice.pickled:
        return InvalidError(
            f"{source}: the only weights are pickled, which run code when they are read: {_some(choice.pickled)}",
            hint="choose a repository or revision with safetensors; or, if you trust the owner, allow these files by "
            f"name in model.yaml: model: {{allow: [{', '.join(sorted(choice.pickled)[:3])}, …]}} (or --allow NAME)",
        )
    return InvalidError(
        f"{source}: no weights among its files, expected *.safetensors or *.gguf",
        hint="check the id, and model.include and model.exclude",
    )


def check_servable(source: ModelSource, choice: Choice) -> None:
    """Refuse before anything comes what deploy would refuse after all of it; check_folder looks closer then."""
    if any(file.path == "config.json" for file in choice.files):
        return
    gguf = any(_suffix(file.path) == ".gguf" for file in choice.files)
    raise InvalidError(
        f"{source}: config.json is not among the files to be fetched, and deploy needs it",
        hint="a repository of GGUF files alone has none: use the one with the model's safetensors, or put config.json, "
        "tokenizer and one GGUF file into a folder and name that (model: ./folder)"
        if gguf
        else "check the id, and model.include and model.exclude",
    )


def check_code(source: ModelSource, texts: Mapping[str, str]) -> None:
    """Raise InvalidError where a configuration names code of a repository that was neither allowed nor excluded."""
    needed = {
        f"{module}.py": path
        for path, text in texts.items()
        for module in _modules(source, path, text)
        if f"{module}.py" not in source.allow and not matches(f"{module}.py", source.exclude)
    }
    if needed:
        where = ", ".join(sorted(set(needed.values())))
        raise InvalidError(
            f"{source}: {where} (auto_map) wants code to be run: {_some(sorted(needed))}",
            hint="read that code; then allow it by name (model.allow, or --allow NAME) and set trust_remote_code: "
            'true; or, where vLLM knows the model without it, leave it out: model.exclude: ["*.py"]',
        )


def _modules(source: ModelSource, path: str, text: str) -> set[str]:
    """Name the modules in the auto_map of a configuration: `modeling_x`, or `owner/other--modeling_x`."""
    try:
        value = json.loads(text)
    except ValueError:
        return set()
    except RecursionError:
        raise InvalidError(
            f"{source}: {path}: nested too deeply to be read, expected a configuration",
            hint="leave it out (model.exclude), or use another repository",
        ) from None
    found = value.get("auto_map") if is_mapping(value) else None
    if not is_mapping(found):
        return set()
    said = [item for entry in found.values() for item in (entry if is_list(entry) else [entry])]
    return {item.rpartition(".")[0] or item for item in said if isinstance(item, str)}


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a path matches a pattern; as on the hubs, `*` goes over slashes and `dir/` is all below it."""
    return any(fnmatch.fnmatchcase(path, f"{p}*" if p.endswith("/") else p) for p in patterns)


def _is_legal(path: str) -> bool:
    return PurePosixPath(path).name.startswith(LEGAL) and _suffix(path) in DOCUMENTS


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
