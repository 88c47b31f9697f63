"""Keys of clients: made here, shown once, and known to the gateways by their hashes alone."""

import hashlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from onprem_llm.book_state import BookEntry
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, UnreachableError, UsageError
from onprem_llm.look import View, failures_text
from onprem_llm.output import Progress, note
from onprem_llm.person import person
from onprem_llm.rendering.haproxy_maps import CLI_KEY, PAGE_KEY
from onprem_llm.runner import RunResult, raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.silent_gateways import answering_gateways
from onprem_llm.spec.deployment import parse_deployment

PREFIX: Final = "sk-"
KEY_BYTES: Final = 32
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
INTERNAL: Final = (CLI_KEY, PAGE_KEY)
UNITS: Final = {"s": "second", "sec": "second", "min": "minute", "m": "minute", "h": "hour", "d": "day"}
SECONDS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
COUNTERS: Final = ("requests", "prompt_tokens", "completion_tokens", "refused")
# The gateway compares 32-bit numbers.
MOST_A_PERIOD: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is asked for. `models` are deployments' names, None for all; `expires` in seconds since 1970."""

    name: str
    models: tuple[str, ...] | None
    rate: Mapping[str, object] | None
    expires: int | None


def make_key() -> str:
    """Return a new key."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def parse_rate(text: str) -> dict[str, object]:
    """Read `60/min`: a number, and second, minute, hour or day."""
    found = re.fullmatch(r"([0-9]{1,10})/([a-z]+)", text.strip())
    unit = UNITS.get(found[2]) or (found[2] if found[2] in UNITS.values() else None) if found else None
    if not found or unit is None or not 0 < int(found[1]) <= MOST_A_PERIOD:
        raise UsageError(f"--rate {text!r}: expected a number of requests a second, minute, hour or day",
                         hint="for example --rate 60/min")  # fmt: skip
    return {"count": int(found[1]), "unit": unit}


def parse_expiry(text: str, now: int) -> int:
    """Read `90d`, `12h`, `30m` or `8w` from now on; return seconds since 1970."""
    found = re.fullmatch(r"([0-9]{1,10})([mhdw])", text.strip())
    if not found or int(found[1]) == 0 or now + int(found[1]) * SECONDS[found[2]] > MOST_A_PERIOD:
        raise UsageError(f"--expires {text!r}: expected a time from now on, before 2038",
                         hint="for example --expires 90d; m, h, d, w: minutes, hours, days, weeks")  # fmt: skip
    return now + int(found[1]) * SECONDS[found[2]]


def parse_models(text: str, book: Mapping[str, BookEntry]) -> tuple[str, ...]:
    """Read `a,b`, names of deployments or the names that they are served by; return deployments."""
    served = {name: name for name in book}
    for name, entry in book.items():
        served.setdefault(parse_deployment(entry.model_yaml, f"the book's {name}").served_name, name)
    wanted = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in wanted if word not in served]
    if unknown or not wanted:
        what = f"no deployment is called {', '.join(unknown)}" if unknown else "no model is named"
        raise InvalidError(f"--models {text!r}: {what}; there are: {', '.join(served) or 'none'}",
                           hint="onprem-llm status lists them")  # fmt: skip
    return tuple(sorted({served[word] for word in wanted}))


def check_name(name: str) -> None:
    """Refuse a name that cannot be, or that is ours."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a key: it must be made of a-z 0-9 . _ -",
                         hint="at most 63, the first a letter or a digit: alice, team-a, ci.nightly")  # fmt: skip
    if name in INTERNAL:
        raise UsageError(f"{name!r} is the name of a key of onprem-llm's own", hint="choose another name")


def create(new: NewKey, key: str, view: View, connection: Connection, progress: Progress | None) -> None:
    """Make a key known to every gateway, or to none."""
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    order = {
        "action": "create",
        "name": new.name,
        "sha256": sha256,  # apart from the rest: the host's module logs what it was given, but for this
        "key": {
            "models": list(new.models) if new.models is not None else None,
            "rate": new.rate,
            "expires": new.expires,
            "by": person(),
        },
    }
    try:
        result = _run(order, view, connection, progress, "Making the key known")
    except KeyboardInterrupt:
        # Not taken back: a key of that name may have been there before, and is somebody's.
        note(f"Stopped: {new.name} may have been made, and nobody has seen the key: onprem-llm key list, key revoke")
        raise
    bad = {failure.host for failure in result.failures}
    well = [host for host in result.hosts if host not in bad]
    if bad and well:
        # A key that works on one gateway and not on the other is worse than none.
        _run({"action": "revoke", "name": new.name}, view, connection, progress, "Taking it back", hosts=well)
    _raise(result, doing="making the key known (no key was made)")


def revoke(name: str, view: View, connection: Connection, progress: Progress | None) -> None:
    """Take a key away on every gateway."""
    result = _run({"action": "revoke", "name": name}, view, connection, progress, "Revoking the key")
    _raise(result, doing="revoking the key: there it still works")


def listed(view: View, connection: Connection, progress: Progress | None) -> tuple[dict[str, Any], list[str]]:
    """Return the keys by name, as the first gateway that answers has them, and what a person should know."""
    result = _run({"action": "list"}, view, connection, progress, "Reading the keys")
    answers = _answers(result, "keys")
    first = next(iter(answers))
    notes = [failures_text(result.failures)] if result.failures else []
    for host, keys in answers.items():
        away = sorted(name for name in {*keys, *answers[first]} if _counts(keys, name) != _counts(answers[first], name))
        if away:
            notes.append(f"{host} and {first} differ about {', '.join(away)}: revoke and create these again")
    return answers[first], notes


def usage(view: View, connection: Connection, progress: Progress | None) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return {name: {counter: number}}, summed over the gateways, and what a person should know."""
    result = _run({"action": "usage"}, view, connection, progress, "Reading what the keys used")
    totals: dict[str, dict[str, int]] = {}
    for keys in _answers(result, "usage").values():
        for name, counters in keys.items():
            total = totals.setdefault(name, dict.fromkeys(COUNTERS, 0))
            for counter in COUNTERS:
                total[counter] += int(counters.get(counter, 0))
    notes = [f"without these gateways:\n{failures_text(result.failures)}"] if result.failures else []
    return dict(sorted(totals.items())), notes


def moment(epoch: object) -> str | None:
    """Write seconds since 1970 as a day and a time of day, UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(epoch)) if isinstance(epoch, int) else None


def _counts(keys: Mapping[str, Any], name: str) -> tuple[object, ...] | None:
    key = keys.get(name)
    if key is None or key.get("revoked") is not None:
        return None
    return key.get("models"), key.get("rate"), key.get("expires")


def _answers(result: RunResult, part: str) -> dict[str, Any]:
    """Return what each gateway answered; raise where none did."""
    answers = {host: values[part] for host, values in result.returned.items() if part in values}
    if not answers:
        _raise(result, doing="reading the keys")
        raise OnpremError("no gateway told its keys", hint="run the command again")
    return answers


def _raise(result: RunResult, *, doing: str) -> None:
    """Raise for what failed. Where every gateway says the same, that is the message."""
    said = {failure.message for failure in result.failures}
    if len(said) == 1 and len(result.failures) == len(result.hosts) and not any(f.unreachable for f in result.failures):
        raise InvalidError(f"{', '.join(result.hosts)}: {said.pop()}", hint="onprem-llm key list shows the keys")
    raise_for_failures(result, doing=doing)


def _run(
    order: Mapping[str, object],
    view: View,
    connection: Connection,
    progress: Progress | None,
    title: str,
    hosts: Sequence[str] | None = None,
) -> RunResult:
    """Give every gateway the same order."""
    names = [host.name for host in answering_gateways(view.current)] if hosts is None else list(hosts)
    if not names:
        if view.failures:
            raise UnreachableError("no host that answered is a gateway", details=failures_text(view.failures),
                                   hint="mend the hosts above")  # fmt: skip
        raise UnreachableError("no host of this inventory is prepared", hint="run: onprem-llm bootstrap INVENTORY")
    with run_folder() as folder:
        path = write_orders(folder, 0, dict.fromkeys(names, order))
        variables = {"onprem_llm_seam": str(folder), "onprem_llm_order_file": str(path)}
        return run("keys.yml", connection, hosts=names, variables=variables, progress=progress, title=title)
