"""The memory of a running episode: keys and values of a pinned prompt and of the newest tokens.

* :class:`RingCache` -- a fixed amount of memory for each row.
* :class:`CacheUpdate` -- new tokens of some of its rows.

Shapes: B rows, T tokens, N new tokens of all rows, S cache slots, H heads, K head size, L layers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.model.attention import rotary_table
from policies.model.config import NetworkConfig
from policies.model.cuda_graphs import CudaGraphCache
from policies.model.quantized_linear import has_kernels

__all__ = ["CacheUpdate", "RingCache"]


SLOTS_TOGETHER = 8
"""Slots are a multiple of it: products of other sizes may be summed in another order where there
are more rows, and a row would depend on its batch."""


@dataclass
class RingCache:
    """Keys and values of the tokens that a row may still see.

    The first ``pinned`` slots are the prompt's; live position p lives in slot
    ``pinned + (p - prompt) % ring``. The ring is a window plus one chunk long, so that no token of
    a chunk overwrites what another of the same chunk still sees. Slots come last, so that both
    products of attention read memory in order.

    Attributes:
        keys, values: float ``[L, B, H, K, S]``.
        positions: int64 ``[B, S]``, position that each slot holds, -1 when empty.
        prompt: First live position.
        pinned: Slots of the pinned region.
        graphs: Recorded steps over this memory; a copy or a part has none.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    prompt: int
    pinned: int
    graphs: CudaGraphCache = field(default_factory=CudaGraphCache, repr=False, compare=False)

    @classmethod
    def empty(
        cls, config: NetworkConfig, *, rows: int, ring: int, pinned: int, like: Tensor
    ) -> RingCache:
        """An empty cache.

        Args:
            config: Sizes of the network.
            rows: B.
            ring: Live slots, at least; 0 where every token is seen by itself alone.
            pinned: Slots of the prompt, at most ``config.prompt_tokens``.
            like: Has the device and the dtype of the cache. A CPU without
                :mod:`policies.model.cpu_kernels`, or with sizes that are not multiples of four,
                uses float32, where attention is faster than in fewer bits.
        """
        slots = -(-(pinned + ring) // SLOTS_TOGETHER) * SLOTS_TOGETHER
        shape = (config.layers, rows, config.heads, config.head_size, slots)
        sizes = (config.head_size, config.width, 2 * config.feed_forward)
        fit = has_kernels() and all(size % 4 == 0 for size in sizes)
        wide = like.device.type == "cpu" and not fit
        dtype = torch.float32 if wide else like.dtype
        return cls(
            keys=torch.zeros(shape, dtype=dtype, device=like.device),
            values=torch.zeros(shape, dtype=dtype, device=like.device),
            positions=torch.full((rows, slots), -1, dtype=torch.long, device=like.device),
            prompt=config.prompt_tokens,
            pinned=pinned,
        )

    @property
    def nbytes(self) -> int:
        """Bytes held, fixed at construction."""
        return sum(
            t.nelement() * t.element_size() for t in (self.keys, self.values, self.positions)
        )

    def part(self, rows: slice | Tensor) -> RingCache:
        """Some rows: a view of a slice, a copy of indices (int64 ``[n]``)."""
        return RingCache(
            self.keys[:, rows], self.values[:, rows], self.positions[rows], self.prompt, self.pinned
        )

    @classmethod
    def join(cls, caches: Sequence[RingCache]) -> RingCache:
        """The rows of several caches, one cache after another.

        Raises:
            ValueError: The caches have different sizes.
        """
        sizes = {(cache.prompt, cache.pinned, cache.positions.shape[1]) for cache in caches}
        if len(sizes) != 1:
            raise ValueError(
                f"caches have (prompt, pinned slots, slots) {sorted(sizes)}: expected caches of "
                "one size"
            )
        return cls(
            torch.cat([cache.keys for cache in caches], 1),
            torch.cat([cache.values for cache in caches], 1),
            torch.cat([cache.positions for cache in caches]),
            caches[0].prompt,
            caches[0].pinned,
        )

    def slots(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slot of each position: int64, the shape of ``positions``."""
        ring = max(1, self.positions.shape[1] - self.pinned)
        live = self.pinned + (positions - self.prompt) % ring
        return np.where(positions < self.prompt, positions, live)

    def place(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> Tensor:
        """Rows, slots and positions of tokens, on the cache's device: int64 ``[3, N]``."""
        stacked = np.stack([rows, self.slots(positions), positions])
        return torch.from_numpy(stacked).to(self.keys.device)

    def bias(self, rows: slice, positions_NT: Tensor, window: int) -> Tensor:
        """The bias of the attention scores of tokens at these positions.

        Returns:
            float ``[N, 1, T, S]``: 0 for slots that a token sees, -inf for others.
        """
        held = self.positions[rows][:, None, :]
        query = positions_NT[:, :, None]
        far = query - held >= window
        far[..., : self.pinned] = False
        hidden = (held < 0) | (held > query) | far
        bias = torch.zeros(hidden.shape, dtype=self.keys.dtype, device=held.device)
        return bias.masked_fill_(hidden, float("-inf"))[:, None]


class CacheUpdate:
    """New tokens of some rows: where they go in the cache, and what they see there.

    The constructor writes the tokens' positions into the cache, unless it has no slots. Adjacent
    rows with equally many tokens attend together; a row's numbers do not depend on how many these
    are.

    Args:
        rows: int64 ``[N]``, each token's row, ascending.
        placed: int64 ``[3, N]`` on the cache's device: these rows, the tokens' slots and their
            positions; see :meth:`RingCache.place`.
        cache: The cache of all rows.
        config: Sizes of the network.
        blocks: Sizes of the blocks that the tokens are computed in; none computes all at once.

    Attributes:
        blocks: These sizes.
        rows: int64 ``[N]`` on the cache's device.
        slots: int64 ``[N]`` on the cache's device.
        alone: Whether every token sees itself alone, in a cache without slots; there are no other
            attributes then.
        rotary: Cosines and sines of the positions, ``[N, 1, K / 2]`` each.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        placed: Tensor,
        cache: RingCache,
        config: NetworkConfig,
        blocks: tuple[int, ...] = (),
    ) -> None:
        self.blocks = blocks
        self.alone = not cache.positions.shape[1]
        if self.alone:
            return
        self.rows, self.slots, queries = placed.unbind()
        cache.positions[self.rows, self.slots] = queries
        self.rotary = rotary_table(queries, config.head_size)
        self._groups: list[tuple[slice, slice, int, Tensor]] = []
        for owners, tokens, count in _groups(rows):
            positions = queries[tokens].view(-1, count)
            bias = cache.bias(owners, positions, config.window)
            self._groups.append((owners, tokens, count, bias))

    @functools.cached_property
    def bias(self) -> Tensor:
        """The bias of each token's scores: float32 ``[N, S]``."""
        return torch.cat([bias.flatten(0, 2) for _, _, _, bias in self._groups]).float()

    def attend(self, q_NHK: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Softmax attention of each token to what it sees of its row: ``[N, H, K]``."""
        attended = []
        for rows, tokens, count, bias in self._groups:
            q = q_NHK[tokens].unflatten(0, (-1, count)).transpose(1, 2)
            scores = (q @ keys[rows]).add_(bias)
            shares = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
            y = shares @ values[rows].transpose(2, 3)
            attended.append(y.transpose(1, 2).flatten(0, 1))
        return attended[0] if len(attended) == 1 else torch.cat(attended)


def _groups(rows: NDArray[np.int64]) -> Iterator[tuple[slice, slice, int]]:
    """Adjacent rows with equally many tokens: the rows, their tokens, and how many each has."""
    present, counts = np.unique(rows, return_counts=True)
    breaks = np.flatnonzero((np.diff(counts) != 0) | (np.diff(present) != 1)) + 1
    stops = np.cumsum(counts)
    for first, stop in itertools.pairwise([0, *breaks.tolist(), len(present)]):
        count = int(counts[first])
        tokens = slice(int(stops[first]) - count, int(stops[stop - 1]))
        yield slice(int(present[first]), int(present[stop - 1]) + 1), tokens, count
