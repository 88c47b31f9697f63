"""Whether a host is well after its driver was changed, by what it said before and says now. Pure."""

import re
from collections.abc import Mapping

from onprem_llm.checks.difference import changes
from onprem_llm.checks.report import Report
from onprem_llm.findings import Finding, findings_of
from onprem_llm.probe_values import mapping, mappings, number, text

# How findings of gpu_check name cards: GPU 0 (0000:17:00.0), GPU 2, 3, 4, all 8 GPUs.
PLACE = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9]", re.IGNORECASE)
INDICES = re.compile(r"GPU (\d+(?:, \d+)*)")
EVERY = re.compile(r"\ball \d+ GPUs")
Returned = Mapping[str, object]


def trouble(host: str, then: str, before: Returned, after: Returned) -> str | None:
    """Say what is worse than before: the driver, cards by UUID, what gpu_check judges. None: all is well."""
    runs = mapping(after.get("driver_upgrade")).get("loaded")
    if runs != then:
        return f"found that {f'driver {runs}' if runs else 'no driver'} runs, expected {then}"
    was, now = _report(host, before), _report(host, after)
    worse = [one for one in changes(was, now).get(host, ()) if one.level == "error" and one.check == "gpus"]
    worse += _missed(host, was, now, number(mapping(after.get("driver_upgrade")), "gpus") or 0)
    known = [_named(one, was) for one in was.findings[host] if one.level == "error"]
    errors = [one for one in now.findings[host] if one.level == "error"]
    worse += [one for one in errors if not _is_known(_named(one, now), known)]
    if not worse:
        return None
    first = worse[0]
    return f"found {first.found}, expected {first.expected}. {first.remedy}".strip()


def _missed(host: str, was: Report, now: Report, on_bus: int) -> list[Finding]:
    """Miss cards by their number on the PCI bus where no driver showed any before, as an unfinished run leaves it."""
    had, has = (len(mappings(one.facts[host].get("gpus"))) for one in (was, now))
    if had or has >= on_bus:
        return []
    remedy = "Look at `journalctl -k | grep -i nvrm` on the host."
    expected = "every NVIDIA GPU of the PCI bus"
    return [Finding(host, "gpu_check", "gpus", "error", f"{has} of {on_bus} GPUs", expected, remedy)]


def _named(one: Finding, report: Report) -> tuple[str, frozenset[str]]:
    """Return which error it is, and the cards that it names: by UUID, else by their place on the bus."""
    gpus = mappings(report.facts[one.host].get("gpus"))
    by_index = {str(gpu.get("index")): str(gpu.get("uuid")) for gpu in gpus}
    by_place = {(text(gpu, "bus_id") or "")[-10:]: str(gpu.get("uuid")) for gpu in gpus}
    cards = {by_place.get(place[-10:], place[-10:]) for place in PLACE.findall(one.found)}
    indices = [index for those in INDICES.findall(one.found) for index in re.findall(r"\d+", those)]
    cards |= {by_index.get(index, index) for index in indices}
    cards |= set(by_index.values()) if EVERY.search(one.found) else set()
    code = one.found.partition(" (")[0] if one.check == "xid" else ""
    return f"{one.check} {one.expected} {code}", frozenset(cards)


def _is_known(error: tuple[str, frozenset[str]], known: list[tuple[str, frozenset[str]]]) -> bool:
    """Tell whether all its cards had this error before; how often may differ."""
    kind, cards = error
    had = [before for other, before in known if other == kind]
    return bool(had) and cards <= frozenset().union(*had)


def _report(host: str, returned: Returned) -> Report:
    return Report("", {host: findings_of(host, returned.get("findings"))}, {host: mapping(returned.get("gpu_check"))})
