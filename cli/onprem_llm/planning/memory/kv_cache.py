"""The KV cache in bytes, in blocks and groups as vLLM allots it (v0.32: v1/kv_cache_interface.py, kv_cache_utils.py).

Layers that keep all tokens and layers with a window draw blocks from one pool. They are cut into groups of as many
layers, so that a block of any group is as large: a request takes its tokens' blocks once for each group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onprem_llm.planning.memory.architecture import Architecture
from onprem_llm.planning.memory.settings import Settings
from onprem_llm.planning.memory.windows import FULL

# Where the one kind of layer is less than this much more than the other, both are filled up to the larger count.
_ALIKE = 1.5


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache of one pipeline stage on one GPU. `groups`: the window of each group's layers, FULL for none."""

    token_layer_bytes: int  # what one token keeps in one layer
    group_layers: int  # the most layers that one group has on this stage
    groups: tuple[int, ...]
    kept: int  # layers that keep every token
    windowed: int
    block: int  # tokens
    context: int  # GPUs that share the tokens of layers that keep all
    in_flight: int  # tokens that may be computed before blocks out of a window are given back

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of the pool."""
        return self.group_layers * self.token_layer_bytes * self.block

    @property
    def token_bytes(self) -> int:
        """Bytes that a token keeps in all layers, those with a window too."""
        return self.token_layer_bytes * (self.kept + self.windowed)

    def blocks_of(self, length: int) -> int:
        """How many blocks a request of `length` tokens takes at most."""
        return sum(self._group_blocks(window, length) for window in self.groups)

    def request_bytes(self, length: int) -> int:
        """How many bytes a request of `length` tokens takes at most."""
        return self.blocks_of(length) * self.block_bytes

    def blocks_in(self, memory: int) -> int:
        """How many blocks a pool of so many bytes has."""
        return memory // self.block_bytes if self.block_bytes and memory > 0 else 0

    def longest(self, memory: int, at_most: int, requests: int = 1) -> int:
        """Return the longest context in tokens of which so many requests fit; 0 where not one token does."""
        low, high = 0, at_most
        while low < high:
            middle = (low + high + 1) // 2
            if requests * self.request_bytes(middle) <= memory:
                low = middle
            else:
                high = middle - 1
        return low

    def _group_blocks(self, window: int, length: int) -> int:
        if window == FULL:
            return _ceil(_ceil(length, self.context), self.block)
        # One more: a window seldom begins where a block does.
        return _ceil(min(window - 1 + self.in_flight, length), self.block) + 1


def cache_of(model: Architecture, settings: Settings, layers: Sequence[int], batched_tokens: int) -> Cache:
    """Return the cache of a stage with these layers (indices); `settings.kv_bytes` must be known."""
    width = model.cache_width(settings.tensor) * (settings.kv_bytes or 0)
    groups, sizes = _groups(model, settings, layers)
    windows = [window for index in layers if (window := model.windows[index]) is not None]
    return Cache(
        token_layer_bytes=int(width),
        group_layers=max(sizes, default=0),
        groups=groups,
        kept=sum(window == FULL for window in windows),
        windowed=sum(window != FULL for window in windows),
        block=settings.block,
        context=settings.context,
        in_flight=settings.batches * batched_tokens,
    )


def _groups(model: Architecture, settings: Settings, layers: Sequence[int]) -> tuple[tuple[int, ...], list[int]]:
    """Return each group's window, and how many of its layers are on this stage."""
    kinds: dict[int, list[int]] = {}
    for index, window in enumerate(model.windows):
        if window is not None:
            kinds.setdefault(window if settings.hybrid else FULL, []).append(index)
    if not kinds:
        return (), []
    fewest, most = min(map(len, kinds.values())), max(map(len, kinds.values()))
    size = most if most < fewest * _ALIKE else fewest
    here, found, sizes = set(layers), [], []
    for window, members in kinds.items():
        count = _ceil(len(members), size)
        for number in range(count):
            found.append(window)
            sizes.append(len(here.intersection(members[number::count])))
    return tuple(found), sizes


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit)
