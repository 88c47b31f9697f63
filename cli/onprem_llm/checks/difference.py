"""What changed on hosts between two reports: cards that are gone, counters that grew, lanes, driver, links. Pure.

Memory in use, temperature and load are not compared: they always differ.
"""

from collections.abc import Iterator, Mapping, Sequence

from onprem_llm.checks.network_difference import lines
from onprem_llm.checks.network_sides import ROLE as NETWORK
from onprem_llm.checks.report import Report
from onprem_llm.findings import Finding
from onprem_llm.probe_values import mapping, mappings, number, text

ROLE = "against"
Facts = Mapping[str, object]
# Checks of which changes are told card by card already.
TOLD = {"gpus", "driver", "pcie", "gpu_memory", "gpus_seen", "nvlink", "xid", "mig", "engine_image"}
POWER = (
    "Power the host off (a reboot may not be enough), look at seats, power cables and risers, and power it on. "
    "Cards that go together share a board, a riser, a switch or a power supply."
)
# What a card has once: field, what it is called.
FIXED = {
    "name": "name",
    "memory_total": "memory (MiB)",
    "persistence": "persistence mode",
    "power_limit": "power limit (W)",
}
# Fields whose growth means wear: path, what is counted.
GROWS = {
    ("ecc_aggregate",): "uncorrected memory errors in its life",
    ("remapped", "uncorrected"): "rows remapped for uncorrected errors",
    ("remapped", "corrected"): "rows remapped for corrected errors",
    ("retired", "double"): "pages retired for uncorrected errors",
    ("retired", "single"): "pages retired for corrected errors",
}
WEAR = "The card wears: watch it, and have it replaced where this goes on."


def changes(before: Report, after: Report) -> dict[str, tuple[Finding, ...]]:
    """Return what is different on each host that both reports have; `expected` is what was."""
    found: dict[str, tuple[Finding, ...]] = {}
    slower = lines(before.network, after.network) if before.network is not None and after.network is not None else {}
    for host, facts in after.facts.items():
        if host not in before.facts:
            found[host] = (_change(host, "host", "ok", "not in the report before", "-"),)
            continue
        was, now = (_comparable(report.findings[host], before, after) for report in (before, after))
        found[host] = (*_host(host, before.facts[host], facts), *_findings(host, was, now), *slower.get(host, ()))
    return {host: those for host, those in found.items() if those}


def _comparable(those: Sequence[Finding], before: Report, after: Report) -> list[Finding]:
    """Leave out what lines were found to be where only one of the two has measured them."""
    both = before.network is not None and after.network is not None
    return [one for one in those if both or one.role != NETWORK]


def not_seen(before: Report, after: Report) -> list[str]:
    """Name the hosts of the report before of which this one knows nothing."""
    return [host for host in before.facts if host not in after.facts]


def _change(host: str, check: str, level: str, now: str, was: str, remedy: str = "") -> Finding:
    return Finding(host, ROLE, check, level, now, was, remedy)


def _host(host: str, before: Facts, after: Facts) -> Iterator[Finding]:
    old, new = mapping(before.get("driver")), mapping(after.get("driver"))
    for field, name in {"version": "driver", "cuda": "CUDA"}.items():
        if text(old, field) != text(new, field):
            yield _change(
                host, "driver", "ok", f"{name} {text(new, field) or 'unknown'}", text(old, field) or "unknown"
            )
    if text(before, "kernel") != text(after, "kernel"):
        yield _change(host, "kernel", "ok", text(after, "kernel") or "unknown", text(before, "kernel") or "unknown")
    cards, still = _cards(before), _cards(after)
    yield from _gone(host, cards, still)
    for key in cards:
        if key in still:
            yield from _card(host, cards[key], still[key])
    yield from _links(host, before, after)
    yield from _xids(host, before, after)


def _cards(facts: Facts) -> dict[str, Facts]:
    """Return the cards by what stays theirs: the UUID, else the place on the bus."""
    return {
        text(gpu, "uuid") or text(gpu, "bus_id") or str(gpu.get("index")): gpu for gpu in mappings(facts.get("gpus"))
    }


def _gone(host: str, before: Mapping[str, Facts], after: Mapping[str, Facts]) -> Iterator[Finding]:
    gone = [gpu for key, gpu in before.items() if key not in after]
    new = [gpu for key, gpu in after.items() if key not in before]
    places = {text(gpu, "bus_id"): gpu for gpu in new}
    swapped = [gpu for gpu in gone if text(gpu, "bus_id") in places]
    for gpu in swapped:
        now = places[text(gpu, "bus_id")]
        yield _change(host, "gpus", "ok", f"another card: {_title(now)}", _title(gpu))
    missing = [gpu for gpu in gone if gpu not in swapped]
    if missing:
        words = ", ".join(_title(gpu) for gpu in missing)
        half = "half of the GPUs are missing: " if len(missing) * 2 == len(before) else ""
        found = f"{half}{len(after)} of {len(before)} GPUs; gone: {words}"
        yield _change(host, "gpus", "error", found, f"{len(before)} GPUs", POWER)
    added = [gpu for gpu in new if not any(text(gpu, "bus_id") == text(one, "bus_id") for one in swapped)]
    if added:
        yield _change(host, "gpus", "ok", f"new: {', '.join(_title(gpu) for gpu in added)}", f"{len(before)} GPUs")


def _title(gpu: Facts) -> str:
    return f"{text(gpu, 'name') or 'unknown'} at {text(gpu, 'bus_id') or 'an unknown place'}"


def _card(host: str, old: Facts, new: Facts) -> Iterator[Finding]:
    title = f"GPU {new.get('index')} ({text(new, 'bus_id') or 'no bus id'})"
    for field, name in FIXED.items():
        if old.get(field) != new.get(field):
            yield _change(host, "gpu", "ok", f"{title}: {name} {_shown(new.get(field))}", _shown(old.get(field)))
    for field, name in {"ecc": "ECC", "mig": "MIG"}.items():
        if old.get(field) != new.get(field):
            yield _change(host, field, "ok", f"{title}: {name} {_shown(new.get(field))}", _shown(old.get(field)))
    for path, name in GROWS.items():
        was, now = _counted(old, path), _counted(new, path)
        if was is not None and now is not None and now > was:
            yield _change(host, "gpu_memory", "warning", f"{title}: {now} {name}", str(was), WEAR)
    was, now = number(mapping(old.get("pcie")), "width"), number(mapping(new.get("pcie")), "width")
    if was and now and was != now:
        level = "warning" if now < was else "ok"
        remedy = "Reseat the card, and look at its riser." if now < was else ""
        yield _change(host, "pcie", level, f"{title}: {now} PCIe lanes", str(was), remedy)


def _counted(gpu: Facts, path: Sequence[str]) -> int | None:
    part = gpu
    for name in path[:-1]:
        part = mapping(part.get(name))
    return number(part, path[-1])


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _links(host: str, before: Facts, after: Facts) -> Iterator[Finding]:
    """Compare how pairs of cards are joined; only where the same number of cards is there."""
    old = mapping(mapping(before.get("links")).get("pairs"))
    new = mapping(mapping(after.get("links")).get("pairs"))
    if set(old) != set(new):
        return
    changed = [pair for pair in old if old[pair] != new[pair]]
    if changed:
        now = ", ".join(f"{pair}: {new[pair]}" for pair in changed[:4]) + (" …" if len(changed) > 4 else "")
        was = ", ".join(f"{pair}: {old[pair]}" for pair in changed[:4])
        worse = any(str(old[pair]).startswith("NV") for pair in changed)
        remedy = "Look at nvidia-smi nvlink --status, at bridges, and at nvidia-fabricmanager." if worse else ""
        yield _change(host, "nvlink", "warning" if worse else "ok", now, was, remedy)


def _xids(host: str, before: Facts, after: Facts) -> Iterator[Finding]:
    since = number(before, "now") or 0
    new = [one for one in mappings(after.get("xids")) if (number(one, "last") or 0) > since]
    if new:
        words = ", ".join(f"{one.get('kind')} {one.get('code')} at {one.get('bus_id')}" for one in new[:5])
        yield _change(host, "xid", "warning", f"new: {words}", "before", "See xid above.")


def _findings(host: str, before: Sequence[Finding], after: Sequence[Finding]) -> Iterator[Finding]:
    """Return what needs no eye any more, and what does now and is not told otherwise."""
    was = {one.check: one for one in before if one.level != "ok"}
    now = {one.check: one for one in after if one.level != "ok"}
    for check, one in was.items():
        if check not in now and check not in {"xid"}:
            yield _change(host, check, "ok", "well again", one.found)
    for check, one in now.items():
        if check not in was and check not in TOLD:
            yield _change(host, check, one.level, one.found, "well", one.remedy)
