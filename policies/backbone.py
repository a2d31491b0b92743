"""The transformer and its ring cache.

* :class:`Backbone` -- pre-norm blocks: rotary attention, gated feed-forward (GEGLU).
* :class:`RingCache` -- keys and values of a pinned prompt and of the newest tokens, a fixed amount
  of memory for each row.
* :class:`Arrivals` -- new tokens of some rows of the cache.

:mod:`policies.masks` has the rule of who sees whom in whole packed sequences. Positions count what
stays visible: after a timestep they rewind to the end of what it leaves, so that a token's
position, like its mask, is the same in training and in deployment.

Shapes: B rows, T tokens, N new tokens of all rows, S cache slots, D width, H heads, K head size,
L layers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from policies.blocks import in_blocks, padded
from policies.configuration import NetworkConfig
from policies.masks import TokenRoles, attend, mask_for
from policies.narrow import has_kernels

if TYPE_CHECKING:
    from policies.masks import Mask


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
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    prompt: int
    pinned: int

    @classmethod
    def empty(
        cls, config: NetworkConfig, *, rows: int, ring: int, pinned: int, like: Tensor
    ) -> RingCache:
        """A cache that holds nothing.

        Args:
            config: Sizes of the network.
            rows: B.
            ring: Live slots.
            pinned: Slots of the prompt, ``config.prompt_tokens`` at most.
            like: Gives the device and the dtype. A CPU without :mod:`policies.kernels`, or
                with sizes that are no multiples of four, holds float32: there attention in fewer
                bits is the slower one.
        """
        slots = pinned + ring
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

    def part(self, rows: slice) -> RingCache:
        """A view of some rows."""
        return RingCache(
            self.keys[:, rows], self.values[:, rows], self.positions[rows], self.prompt, self.pinned
        )

    def take(self, rows: Tensor) -> RingCache:
        """A copy of some rows: int64 ``[n]``, in this order."""
        return RingCache(
            self.keys[:, rows], self.values[:, rows], self.positions[rows], self.prompt, self.pinned
        )

    @classmethod
    def join(cls, caches: Sequence[RingCache]) -> RingCache:
        """The rows of several caches, one cache after another, as one of its own.

        Raises:
            ValueError: They have other slots.
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
        ring = self.positions.shape[1] - self.pinned
        live = self.pinned + (positions - self.prompt) % ring
        return np.where(positions < self.prompt, positions, live)

    def bias(self, rows: slice, positions_NT: Tensor, window: int) -> Tensor:
        """What is added to the scores of tokens at these positions.

        Returns:
            float ``[N, 1, T, S]``: 0 for the slots of its row that a token sees, -inf for others.
        """
        held = self.positions[rows][:, None, :]
        query = positions_NT[:, :, None]
        far = query - held >= window
        far[..., : self.pinned] = False
        hidden = (held < 0) | (held > query) | far
        bias = torch.zeros(hidden.shape, dtype=self.keys.dtype, device=held.device)
        return bias.masked_fill_(hidden, float("-inf"))[:, None]


def rotary_table(positions: Tensor, size: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (arXiv 2104.09864).

    Args:
        positions: int64 ``[B, T]`` or ``[N]``.
        size: K, of a head.
        base: Of the frequencies.

    Returns:
        float ``[B, 1, T, K / 2]`` or ``[N, 1, K / 2]`` each: they broadcast over heads.
    """
    exponent = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
    over_heads = positions[:, None, ..., None] if positions.ndim > 1 else positions[:, None, None]
    angles = over_heads.float() * base**-exponent
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the two halves of each head as pairs by the position's angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


class Arrivals:
    """New tokens of some rows: where they go in the cache, and what they see there.

    Making one writes the tokens' positions into the cache. Rows next to each other with equally
    many tokens attend together; how many rows those are decides no row's numbers.

    Args:
        rows: int64 ``[N]``, each token's row, ascending.
        positions: int64 ``[N]``, their positions.
        cache: The cache of all rows.
        config: Sizes: the window and a head's.

    Attributes:
        rows: int64 ``[N]`` on the cache's device.
        slots: int64 ``[N]``, likewise.
        rotary: Cosines and sines of the positions, ``[N, 1, K / 2]`` each.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        cache: RingCache,
        config: NetworkConfig,
    ) -> None:
        uploaded = torch.from_numpy(np.stack([rows, cache.slots(positions), positions]))
        self.rows, self.slots, queries = uploaded.to(cache.keys.device)
        cache.positions[self.rows, self.slots] = queries
        self.rotary = rotary_table(queries, config.head_size)
        self._groups: list[tuple[slice, slice, int, Tensor]] = []
        for owners, tokens, count in _groups(rows):
            asked = queries[tokens].view(-1, count)
            bias = cache.bias(owners, asked, config.window)
            self._groups.append((owners, tokens, count, bias))

    @functools.cached_property
    def bias(self) -> Tensor:
        """What is added to each token's scores: float32 ``[N, S]``."""
        return torch.cat([bias.flatten(0, 2) for _, _, _, bias in self._groups]).float()

    def attend(self, q_NHK: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Softmax attention of each token to what it sees of its row: ``[N, H, K]``."""
        found = []
        for rows, tokens, count, bias in self._groups:
            q = q_NHK[tokens].unflatten(0, (-1, count)).transpose(1, 2)
            scores = (q @ keys[rows]).add_(bias)
            shares = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
            y = shares @ values[rows].transpose(2, 3)
            found.append(y.transpose(1, 2).flatten(0, 1))
        return found[0] if len(found) == 1 else torch.cat(found)


def _groups(rows: NDArray[np.int64]) -> Iterator[tuple[slice, slice, int]]:
    """Rows next to each other with equally many tokens: the rows, their tokens, how many each."""
    present, counts = np.unique(rows, return_counts=True)
    breaks = np.flatnonzero((np.diff(counts) != 0) | (np.diff(present) != 1)) + 1
    stops = np.cumsum(counts)
    for first, stop in itertools.pairwise([0, *breaks.tolist(), len(present)]):
        count = int(counts[first])
        tokens = slice(int(stops[first]) - count, int(stops[stop - 1]))
        yield slice(int(present[first]), int(present[stop - 1]) + 1), tokens, count


class Block(nn.Module):
    """Pre-norm attention and GEGLU. Queries and keys are normalised before they are turned."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        d, inner = config.width, config.heads * config.head_size
        self.heads = config.heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(d), nn.LayerNorm(d)
        self.norm_query, self.norm_key = (nn.RMSNorm(config.head_size) for _ in range(2))
        self.qkv = nn.Linear(d, 3 * inner, bias=False)
        self.attention_out = nn.Linear(inner, d, bias=False)
        self.feed_in = nn.Linear(d, 2 * config.feed_forward, bias=False)
        self.feed_out = nn.Linear(config.feed_forward, d, bias=False)
        for layer in (self.attention_out, self.feed_out):
            nn.init.normal_(layer.weight, std=0.02 / (2 * config.layers) ** 0.5)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Mask,
        kept_B2: Tensor | None = None,
    ) -> Tensor:
        """Whole sequences; ``kept_B2`` multiplies what attention and feed-forward add."""
        batch, length, _ = x_BTD.shape
        qkv = self.qkv(self.norm_attention(x_BTD))
        q, k, v = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dtype = self.norm_query.weight.dtype  # autocast gives fewer bits than the norms have
        q = rotate(self.norm_query(q.to(dtype)), *rotary)
        k = rotate(self.norm_key(k.to(dtype)), *rotary)
        y = attend(q, k, v, mask)
        y = self.attention_out(y.transpose(1, 2).reshape(batch, length, -1))
        if kept_B2 is None:
            x_BTD = x_BTD + y
            return x_BTD + self.feed(x_BTD)
        x_BTD = x_BTD + kept_B2[:, 0, None, None] * y
        return x_BTD + kept_B2[:, 1, None, None] * self.feed(x_BTD)

    def feed(self, x: Tensor) -> Tensor:
        """The gated feed-forward of ``[..., D]``, with its norm."""
        gate, value = self.feed_in(self.norm_feed(x)).chunk(2, dim=-1)
        return self.feed_out(F.gelu(gate) * value)

    def step(self, x_ND: Tensor, arrivals: Arrivals, keys: Tensor, values: Tensor) -> Tensor:
        """New tokens, padded to whole blocks, against one layer's cache ``[B, H, K, S]``."""
        count = len(arrivals.rows)
        qkv = in_blocks(lambda x: self.qkv(self.norm_attention(x)), x_ND)[:count]
        q, k, v = qkv.view(count, 3, self.heads, -1).unbind(1)
        q = rotate(self.norm_query(q), *arrivals.rotary).to(keys.dtype) * q.shape[-1] ** -0.5
        k = rotate(self.norm_key(k), *arrivals.rotary)
        keys[arrivals.rows, :, :, arrivals.slots] = k.to(keys.dtype)
        values[arrivals.rows, :, :, arrivals.slots] = v.to(keys.dtype)
        y = padded(arrivals.attend(q, keys, values).flatten(1).to(x_ND.dtype))
        x_ND = x_ND + in_blocks(self.attention_out, y)
        return x_ND + in_blocks(self.feed, x_ND)


class Backbone(nn.Module):
    """A stack of blocks and a final norm.

    Attributes:
        recompute: Whether the backward pass computes a block's activations again.
        attention: How whole sequences attend: "dense", "flex", or "auto" by the device; see
            :mod:`policies.masks`. That changes the rounding alone.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config, self.recompute, self.attention = config, False, "auto"
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)

    def visibility(self, roles: TokenRoles) -> Mask:
        """Who sees whom in packed sequences, made once for all blocks."""
        return mask_for(roles, self.config.window, attention=self.attention)

    def forward(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        mask: Mask,
        kept_BL2: Tensor | None = None,
    ) -> Tensor:
        """Whole sequences.

        Args:
            x_BTD: Embeddings.
            positions_BT: int64, of each token.
            mask: From :meth:`visibility`.
            kept_BL2: float32, what each block's attention and feed-forward are multiplied by in
                training: 0 where stochastic depth skips them (arXiv 1603.09382). None keeps all.

        Returns:
            float ``[B, T, D]``.
        """
        rotary = rotary_table(positions_BT, self.config.head_size)
        for layer, block in enumerate(self.blocks):
            kept = None if kept_BL2 is None or not self.training else kept_BL2[:, layer]
            if self.recompute and self.training:
                x_BTD = checkpoint(block, x_BTD, rotary, mask, kept, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, rotary, mask, kept)
        return self.norm(x_BTD)

    def step(
        self,
        x_ND: Tensor,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        cache: RingCache,
    ) -> Tensor:
        """New tokens against the cache, which takes them in.

        Args:
            x_ND: Embeddings of the new tokens, of as many rows and as many a row as there are.
            rows: int64 ``[N]``, the row of each, ascending.
            positions: int64 ``[N]``, their positions.
            cache: The cache of all rows. Rows without a token stay as they are.

        Returns:
            float ``[N, D]``.
        """
        arrivals = Arrivals(rows, positions, cache, self.config)
        if cache.keys.device.type == "cpu" and cache.keys.dtype == torch.bfloat16:
            return self._step_narrow(x_ND, arrivals, cache)
        x_ND = padded(x_ND)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x_ND = block.step(x_ND, arrivals, cache.keys[layer], cache.values[layer])
        return self.norm(x_ND)[: len(rows)]

    def _step_narrow(self, x_ND: Tensor, arrivals: Arrivals, cache: RingCache) -> Tensor:
        """New tokens on a CPU, with weights and a cache of fewer bits."""
        from policies import kernels

        wide_ND = x_ND.to(torch.float32, copy=True)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            kernels.step(block, wide_ND, arrivals, cache.keys[layer], cache.values[layer])
        return self.norm(wide_ND.to(x_ND.dtype))
