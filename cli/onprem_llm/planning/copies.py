"""The book's copy on the other gateway hosts: for the day on which the first one is lost."""

from collections.abc import Iterable
from dataclasses import replace

from onprem_llm.book_state import Book
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.types import Change, Plan, Step

WRITES = ("record", "marks")
# Keys that belong to one host.
OWN = ("engine.key", "engine.crt")


def with_copies(plan: Plan, current: Current) -> Plan:
    """Return the plan with a last step that copies the book, where it writes into it, makes a key or a copy is behind.

    Last: a gateway host that dies meanwhile must not keep a change from its end. The next change makes up for it.
    """
    if not current.gateways or any(step.kind == "book_copy" for step in plan.steps):
        return plan
    first, *others = current.gateways
    behind = [host for host in others if is_behind(host, first)]
    writes = any(step.kind in WRITES for step in plan.steps) or bool(_keys_of(plan.steps) - set(first.keys))
    copying = others if writes else behind
    if not copying:
        return plan
    step = Step("book_copy", "Copy the book", {host.name: {"keys_host": first.name} for host in copying})
    why = (f"it differs from {first.name}'s, which counts",)
    changes = [Change(host.name, "the book's copy", "update", why) for host in behind]
    return replace(plan, steps=(*plan.steps, step), changes=(*plan.changes, *changes))


def _keys_of(steps: Iterable[Step]) -> set[str]:
    """Return the names of keys that steps bring, or make where they are nowhere yet."""
    found: set[str] = set()
    for order in (order for step in steps if step.kind == "apply" for order in step.orders.values()):
        keys = order.get("keys")
        found |= {str(key) for key in keys} if isinstance(keys, list | tuple) else set()
    return found


def is_behind(host: HostState, first: HostState) -> bool:
    """Tell whether a gateway host's copy is not what the first one's book says, or lacks its authority or its keys."""
    keys = {name: value for name, value in first.keys.items() if name not in OWN}
    return (
        _counts(host.book) != _counts(first.book)
        or ("ca" in first.certificates) != ("ca" in host.certificates)
        or any(host.keys.get(name) != value for name, value in keys.items())
    )


def _counts(book: Book | None) -> object:
    return (dict(book.deployments), dict(book.removed), dict(book.hosts)) if book is not None else None
