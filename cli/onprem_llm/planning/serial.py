"""A plan as JSON and back: the same plan always gives the same bytes, for `plan --out` and `deploy --plan`."""

import json
from collections.abc import Mapping
from typing import TypeVar, get_args

from onprem_llm.errors import InvalidError
from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.planning.plan_names import check_names
from onprem_llm.planning.plan_shapes import check_shapes
from onprem_llm.planning.types import PLAN_VERSION, Action, Change, Endpoint, EndpointKind, Plan, Step, StepKind, Verb

Word = TypeVar("Word", bound=str)


def to_json(plan: Plan) -> str:
    """Write a plan; the files' texts stand in it too, so that the folder can be compared with it."""
    value = {
        "version": plan.version,
        "based_on": plan.based_on,
        "gateway": plan.gateway,
        "deployment": plan.deployment,
        "verb": plan.verb,
        "revision": plan.revision,
        "model_yaml": plan.model_yaml,
        "steps": [_step_value(step) for step in plan.steps],
        "files": plan.files,
        "changes": [
            {"host": c.host, "subject": c.subject, "action": c.action, "reasons": list(c.reasons)} for c in plan.changes
        ],
        "send_bytes": plan.send_bytes,
        "endpoints": [
            {
                "kind": e.kind,
                "name": e.name,
                "host": e.host,
                "url": e.url,
                "served_name": e.served_name,
                "key_file": e.key_file,
            }
            for e in plan.endpoints
        ],
        "warnings": list(plan.warnings),
        "passed_over": plan.passed_over,
        "secrets": plan.secrets,
    }
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _step_value(step: Step) -> dict[str, object]:
    value: dict[str, object] = {"kind": step.kind, "title": step.title, "orders": step.orders}
    return {**value, "undo": [_step_value(one) for one in step.undo]} if step.undo else value


def from_json(text: str, where: str) -> Plan:
    """Read a plan; InvalidError names `where` when this is none of ours, or of another version."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{where}: this is not JSON: {error}", hint="make it again: onprem-llm plan --out") from None
    if not is_mapping(value) or value.get("version") != PLAN_VERSION:
        found = value.get("version") if is_mapping(value) else type(value).__name__
        raise InvalidError(
            f"{where}: found plan version {found!r}, expected {PLAN_VERSION}",
            hint="make it again with this version: onprem-llm plan --out",
        )
    try:
        plan = _plan(value)
        to_json(plan).encode()  # a lone half of a pair in \u escapes: no file can hold it
        check_shapes(plan)
        check_names(plan)
    except (TypeError, ValueError) as error:
        raise InvalidError(f"{where}: this is no whole plan: {error}", hint="make it again: plan --out") from None
    return plan


def _plan(value: Mapping[str, object]) -> Plan:
    verbs: tuple[Verb, ...] = get_args(Verb)
    sent = _mapping(_at(value, "send_bytes"))
    return Plan(
        based_on=_text(value, "based_on"),
        gateway=_text(value, "gateway"),
        deployment=_text(value, "deployment"),
        verb=_word(value, "verb", verbs),
        revision=_number(value, "revision"),
        model_yaml=_text(value, "model_yaml"),
        steps=tuple(_step(item) for item in _items(value, "steps")),
        files={
            host: {project: _texts(files) for project, files in _mapping(projects).items()}
            for host, projects in _mapping(_at(value, "files")).items()
        },
        changes=tuple(_change(item) for item in _items(value, "changes")),
        send_bytes={host: _number(sent, host) for host in sent},
        endpoints=tuple(_endpoint(item) for item in _items(value, "endpoints")),
        warnings=tuple(_strings(_at(value, "warnings"))),
        passed_over=_texts(_at(value, "passed_over")),
        secrets={
            project: {env: _texts(reference) for env, reference in _mapping(references).items()}
            for project, references in _mapping(_at(value, "secrets")).items()
        },
    )


def _step(raw: Mapping[str, object]) -> Step:
    kinds: tuple[StepKind, ...] = get_args(StepKind)
    orders = {host: _mapping(order) for host, order in _mapping(_at(raw, "orders")).items()}
    undo = tuple(_step(item) for item in _items(raw, "undo")) if "undo" in raw else ()
    return Step(_word(raw, "kind", kinds), _text(raw, "title"), orders, undo)


def _change(raw: Mapping[str, object]) -> Change:
    actions: tuple[Action, ...] = get_args(Action)
    reasons = tuple(_strings(_at(raw, "reasons")))
    return Change(_text(raw, "host"), _text(raw, "subject"), _word(raw, "action", actions), reasons)


def _endpoint(raw: Mapping[str, object]) -> Endpoint:
    kinds: tuple[EndpointKind, ...] = get_args(EndpointKind)
    served, key_file = _at(raw, "served_name"), _at(raw, "key_file")
    return Endpoint(
        kind=_word(raw, "kind", kinds),
        name=_text(raw, "name"),
        host=_text(raw, "host"),
        url=_text(raw, "url"),
        served_name=served if isinstance(served, str) else None,
        key_file=key_file if isinstance(key_file, str) else None,
    )


def _at(value: Mapping[str, object], key: str) -> object:
    if key not in value:
        raise ValueError(f"{key}: found nothing, expected a value")
    return value[key]


def _word(value: Mapping[str, object], key: str, words: tuple[Word, ...]) -> Word:
    """Return the one of the words that stands there."""
    found = _text(value, key)
    word = next((word for word in words if word == found), None)
    if word is None:
        raise ValueError(f"{key}: found {found!r:.60}, expected {', '.join(words)}")
    return word


def _mapping(value: object) -> Mapping[str, object]:
    if not is_mapping(value):
        raise TypeError(f"found {value!r:.60}, expected a mapping")
    return value


def _items(value: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    found = _at(value, key)
    if not is_list(found):
        raise TypeError(f"{key}: found {found!r:.60}, expected a list")
    return [_mapping(item) for item in found]


def _strings(value: object) -> list[str]:
    if not is_list(value) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"found {value!r:.60}, expected a list of texts")
    return [str(item) for item in value]


def _texts(value: object) -> dict[str, str]:
    return {key: _text(_mapping(value), key) for key in _mapping(value)}


def _text(value: Mapping[str, object], key: str) -> str:
    found = _at(value, key)
    if not isinstance(found, str):
        raise TypeError(f"{key}: found {found!r:.60}, expected text")
    return found


def _number(value: Mapping[str, object], key: str) -> int:
    found = _at(value, key)
    if not isinstance(found, int) or isinstance(found, bool):
        raise TypeError(f"{key}: found {found!r:.60}, expected a number")
    return found
