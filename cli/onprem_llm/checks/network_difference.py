"""What changed on the lines between hosts since an earlier report. Pure.

Ports, packet sizes and clocks that are wrong now are findings of their own; here is what no threshold catches.
"""

from collections.abc import Mapping

from onprem_llm.checks.network import Link, network_of
from onprem_llm.checks.network_words import rate_text
from onprem_llm.findings import Finding

SLOWER = 0.7  # of what it was
REMEDY = "Look at what was changed on the way since: cable, switch port, card, what else uses the line."


def lines(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, tuple[Finding, ...]]:
    """Return host -> lines from it that are slower than they were, and those that are as fast again."""
    was, now = network_of(before).line, network_of(after).line
    found: dict[str, list[Finding]] = {}
    for way, link in now.items():
        change = _change(link, was.get(way))
        if change is not None:
            found.setdefault(link.source, []).append(change)
    return {host: tuple(those) for host, those in found.items()}


def _change(now: Link, was: Link | None) -> Finding | None:
    if was is None or was.rate is None or now.rate is None or SLOWER * was.rate <= now.rate <= was.rate / SLOWER:
        return None
    worse = now.rate < was.rate
    level, remedy = ("warning", REMEDY) if worse else ("ok", "")
    text = f"{rate_text(now.rate)} to {now.target}"
    return Finding(now.source, "against", "line", level, text, rate_text(was.rate), remedy)
