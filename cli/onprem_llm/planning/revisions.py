"""Revisions: the text that the book keeps for a deployment, and what differs between two of them."""

import json
from collections.abc import Iterable, Mapping
from typing import Final

import yaml

from onprem_llm import fast_yaml
from onprem_llm.errors import InvalidError
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.engine_args import normal

WEIGHTS_LINE: Final = "# weights: "


def canonical_text(deployment: Deployment, weights_id: str) -> str:
    """Return model.yaml as the book keeps it: what was written, in the order of the fields, and the weights it meant.

    Two files that mean the same give the same text; a folder whose weights changed gives another one.
    """
    value = deployment.model_dump(mode="json", exclude_defaults=True, exclude_none=True, warnings="none")
    value = {"api_version": 1, **value, "served_name": deployment.served_name}
    value["engine"]["engine_args"] = dict(sorted(deployment.engine.engine_args.items()))
    # Of a text that is kept the bytes must stay: libyaml writes others outside of ASCII.
    alike = json.dumps(value, ensure_ascii=False).isascii() and fast_yaml.writes_alike(json.dumps(value))
    dumper = fast_yaml.Dumper if alike else yaml.SafeDumper
    body = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=fast_yaml.WIDTH)
    return f"{WEIGHTS_LINE}{weights_id}\n{body}"


def weights_of(model_yaml: str) -> str | None:
    """Return the weights that a text of the book names."""
    first = model_yaml.partition("\n")[0]
    return first.removeprefix(WEIGHTS_LINE).strip() if first.startswith(WEIGHTS_LINE) else None


def differences(old_text: str, new_text: str) -> tuple[str, ...]:
    """Say field by field what changed: `engine args: max_model_len 2048 -> 1024`."""
    if old_text == new_text:
        return ()
    try:
        before, after = parse_deployment(old_text, "book"), parse_deployment(new_text, "model.yaml")
    except InvalidError:
        return ("model.yaml changed",)
    shape = type(before.replicas) is not type(after.replicas)
    old, new = _flat(before, shape=shape), _flat(after, shape=shape)
    reasons = [
        f"{_label(key)} {_value(old, key)} -> {_value(new, key)}"
        for key in sorted({**old, **new})
        if old.get(key) != new.get(key)
    ]
    old_weights, new_weights = weights_of(old_text), weights_of(new_text)
    if old_weights != new_weights:
        reasons.append(f"weights {old_weights or 'unknown'} -> {new_weights or 'unknown'}")
    return tuple(reasons)


def only_counts(why: Iterable[str]) -> bool:
    """Tell whether a change is about nothing but how many replicas there are, and how requests reach them."""
    return all(reason.startswith(("replicas:", "schedule:", "timezone:", "update", "routing:")) for reason in why)


def _flat(deployment: Deployment, *, shape: bool) -> dict[str, object]:
    """Return the fields by their paths; `shape`: bounds of replicas are said as one, beside a number."""
    found: dict[str, object] = {}

    def walk(value: object, at: str) -> None:
        if at == "replicas" and isinstance(value, Mapping) and shape:
            found[at] = f"{value['min']} to {value['max']}"
        elif isinstance(value, Mapping) and value and at != "env":
            for key, item in value.items():
                name = normal(str(key)) if at == "engine.engine_args" else str(key)
                walk(item, f"{at}.{name}" if at else name)
        elif isinstance(value, Mapping) and at == "env":
            found.update({f"env.{key}": item for key, item in value.items()})
        else:
            found[at] = value

    walk(deployment.model_dump(mode="json", warnings="none"), "")
    return found


def _label(key: str) -> str:
    args = "engine.engine_args."
    return f"engine args: {key.removeprefix(args)}" if key.startswith(args) else f"{key}:"


def _value(values: Mapping[str, object], key: str) -> str:
    value = values.get(key)
    if isinstance(value, Mapping):
        return "a secret reference" if {"from_env", "from_file"} & set(value) else "a mapping"
    text = str(value) if value not in (None, [], {}) else "(none)"
    return text if len(text) <= 60 else f"{text[:57]}..."
