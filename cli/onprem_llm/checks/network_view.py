"""The lines between hosts as a table. Pure."""

from collections.abc import Mapping

from onprem_llm.checks.network import Link, Network, Pair, network_of
from onprem_llm.checks.network_words import rate_text, time_text
from onprem_llm.output import table_text

COLUMNS = ("between", "and", "there", "back", "delay", "at worst", "largest packet", "clocks apart")
SHOWN = 15  # pairs; --verbose shows all


def lines_text(document: Mapping[str, object], *, verbose: bool) -> str:
    """Lay out a row a pair, the slowest first; nothing where there is none."""
    network = network_of(document)
    pairs = sorted(network.pairs, key=_least)
    shown = pairs if verbose else pairs[:SHOWN]
    if not pairs:
        return ""
    text = table_text(COLUMNS, [_row(network, pair) for pair in shown])
    more = len(pairs) - len(shown)
    return f"{text}\n\n{more} more pairs are faster; --verbose shows them." if more else text


def _least(pair: Pair) -> float:
    rates = [link.rate for link in pair.links if link.rate is not None]
    return min(rates, default=-1.0)


def _row(network: Network, pair: Pair) -> list[str]:
    there, back = network.line.get((pair.a, pair.b)), network.line.get((pair.b, pair.a))
    sizes = dict.fromkeys(str(link.mtu) for link in (there, back) if link and link.mtu)
    apart = None
    if pair.offset is not None and pair.bound is not None:
        apart = f"{time_text(abs(pair.offset))} ± {time_text(pair.bound)}"
    times = [None if value is None else time_text(value) for value in (pair.rtt_median, pair.rtt_worst)]
    cells = [_rate(there), _rate(back), *times, ", ".join(sizes), apart]
    return [pair.a, pair.b, *(cell or "-" for cell in cells)]


def _rate(link: Link | None) -> str | None:
    return None if link is None or link.rate is None else rate_text(link.rate)
