"""Shapes in a plan: a list where a role loops, a mapping where it looks for names, and words that are fixed.

Looked at first: what is no list has no entries that another check could look at, and a role would stumble over it.
"""

from collections.abc import Iterator, Mapping, Sequence

from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.planning.types import Plan, Step, StepKind

# Places in an order, outer ones first: names joined by dots, * for each entry of a list. One that is absent is well.
LISTS = (
    *("projects", "weights", "images", "keys", "client_keys", "drain", "ready", "let_in", "pending", "names"),
    *("weights.*.files", "weights.*.send", "chain.members", "chain.members.*", "blobs.files", "store.files"),
    *("store.keep", "tls.names", "firewall.ports", "firewall.sources", "projects.*.secrets.entries"),
    *("projects.*.secrets.values", "projects.*.secrets.entries.*.keys", "firewall.gangs", "firewall.gangs.*.ports"),
    *("firewall.gangs.*.sources", "gang_lines", "gang_lines.*.ports", "gang_lines.*.peers"),
)
MAPPINGS = (
    *("project", "chain", "blobs", "store", "tls", "engine_tls", "trust", "engine_keys", "states", "firewall"),
    *("projects.*", "weights.*", "images.*", "project.files", "projects.*.files", "weights.*.files.*"),
    *("firewall.gangs.*", "gang_lines.*", "gang_lines.*.peers.*"),
    *("blobs.files.*", "store.files.*", "store.links", "projects.*.secrets.entries.*", "placement", "event"),
)
# What some kinds of steps have in another shape.
ELSE: Mapping[StepKind, frozenset[str]] = {
    "record": frozenset({"images", "images.*"}),  # ref -> id
    "remove": frozenset({"weights.*", "images.*"}),  # paths, ids
}
WORDS = {
    "states.*": ("ready", "drain", "maint"),
    "tls.mode": ("off", "ca", "files"),
    "firewall.state": ("present", "absent"),
    "state": ("present", "held", "released", "absent"),
    "rest": ("briefly", "drained", "none"),
    "projects.*.state": ("healthy", "started", "made"),
}


def check_shapes(plan: Plan) -> None:
    """Raise ValueError, which names the place, for what no order of this version has there."""
    for number, step in enumerate(plan.steps):
        _check_step(step, f"steps.{number}")


def _check_step(step: Step, where: str) -> None:
    for host, order in step.orders.items():
        _check_order(order, ELSE.get(step.kind, frozenset()), f"{where}.orders.{host}")
    for number, back in enumerate(step.undo):
        _check_step(back, f"{where}.undo.{number}")


def _check_order(order: Mapping[str, object], other: frozenset[str], where: str) -> None:
    for path in LISTS:
        for at, value in _found(order, path, where) if path not in other else ():
            _expect(is_list(value), value, "a list", at)
    for path in MAPPINGS:
        for at, value in _found(order, path, where) if path not in other else ():
            _expect(is_mapping(value), value, "a mapping", at)
    for path, words in WORDS.items():
        for at, value in _found(order, path, where):
            _expect(value in words, value, " or ".join(words), at)


def _found(value: object, path: str, where: str) -> Iterator[tuple[str, object]]:
    """Yield what an order has at a place, or at each place that * stands for."""
    key, _, rest = path.partition(".")
    for name, one in _entries(value) if key == "*" else _named(value, key):
        at = f"{where}.{name}"
        if rest:
            yield from _found(one, rest, at)
        else:
            yield at, one


def _entries(value: object) -> Sequence[tuple[object, object]]:
    if is_mapping(value):
        return list(value.items())
    return list(enumerate(value)) if is_list(value) else []


def _named(value: object, key: str) -> Sequence[tuple[object, object]]:
    return [(key, value[key])] if is_mapping(value) and key in value else []


def _expect(holds: bool, found: object, expected: str, where: str) -> None:
    if not holds:
        raise ValueError(f"{where}: found {found!r:.60}, expected {expected}")
