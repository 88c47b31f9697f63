"""engine_args as vLLM's command line."""

import json
from collections.abc import Mapping


def flags(args: Mapping[str, object]) -> list[str]:
    """Spell arguments as flags, sorted, so that another order in model.yaml restarts nothing.

    true is a bare flag, false its --no- form, null leaves the flag out, a list is values after the flag, a mapping is
    JSON.
    """
    return [part for name in sorted(args, key=flag_name) for part in _flag(flag_name(name), args[name])]


def flag_name(name: str) -> str:
    """Spell max_model_len as --max-model-len; what follows a dot is a key of a nested setting and stays."""
    head, dot, rest = name.removeprefix("--").partition(".")
    return f"--{head.replace('_', '-')}{dot}{rest}"


def _flag(flag: str, value: object) -> list[str]:
    if value is None or value == []:
        return []
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    if isinstance(value, list):
        return [flag, *(_text(item) for item in value)]
    text = _text(value)
    # argparse takes a value that begins with a dash for the next flag, unless it is joined on.
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
