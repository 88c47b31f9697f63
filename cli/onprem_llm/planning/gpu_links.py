"""How the GPUs of a host reach each other, as `nvidia-smi topo -m` says it, and which of them make the best group."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from math import comb

from onprem_llm.hosts import Gpu

# From the nearest on: one PCIe switch, several, a host bridge, one processor's bridges, both processors.
PCIE = ("PIX", "PXB", "PHB", "NODE", "SYS")
FAR = PCIE[-1]
# Of what is not known: no better than the worst, and not told from it.
UNKNOWN = len(PCIE)
# Groups that are looked through; 8 of 16 are 12,870. No host has more that differ.
MOST_GROUPS = 20_000


def best_joined(gpus: Sequence[Gpu], count: int, links: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return `count` of the GPUs, of which there must be so many: the group whose worst link is the best.

    Of equals the first, in the order given; where nothing is known of links, or all are alike, that is the first ones.
    """
    first = tuple(gpus[:count])
    if count < 2 or len(gpus) == count or comb(len(gpus), count) > MOST_GROUPS:
        return first
    costs = {(one.uuid, other.uuid): _cost(one, other, links) for one, other in itertools.combinations(gpus, 2)}
    if len(set(costs.values())) == 1:
        return first
    return min(itertools.combinations(gpus, count), key=lambda group: _group(group, costs))


def worst_link(gpus: Iterable[Gpu], links: Mapping[str, str]) -> str | None:
    """Return the slowest way between two of these GPUs; None where none is known."""
    pairs = itertools.combinations(gpus, 2)
    known = [(_cost(one, other, links), kind) for one, other in pairs if (kind := _kind(one, other, links))]
    return max(known)[1] if known else None


def _group(group: Sequence[Gpu], costs: Mapping[tuple[str, str], int]) -> tuple[int, int]:
    found = [costs[one.uuid, other.uuid] for one, other in itertools.combinations(group, 2)]
    return max(found), sum(found)


def _cost(one: Gpu, other: Gpu, links: Mapping[str, str]) -> int:
    """Rank a link: the more NVLinks the lower, then PCIe by its distance."""
    kind = _kind(one, other, links) or ""
    nvlinks = re.fullmatch(r"NV(\d{1,3})", kind)
    if nvlinks:
        return -int(nvlinks[1])
    return PCIE.index(kind) if kind in PCIE else UNKNOWN


def _kind(one: Gpu, other: Gpu, links: Mapping[str, str]) -> str | None:
    low, high = sorted((one.index, other.index))
    return links.get(f"{low}-{high}")
