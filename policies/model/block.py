"""One block of the transformer.

* :class:`Block` -- rotary attention and a gated feed-forward (GEGLU), pre-norm.

Shapes: B rows, T tokens, N new tokens of all rows, S cache slots, D width, H heads, K head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from policies.model.attention import attend, rotate
from policies.model.config import NetworkConfig
from policies.model.kv_cache import CacheUpdate
from policies.model.row_blocks import in_blocks, padded

if TYPE_CHECKING:
    from policies.model.attention import Mask


class Block(nn.Module):
    """Pre-norm attention and GEGLU. Queries and keys are normalised before rotation."""

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
        residual_mask_B2: Tensor | None = None,
    ) -> Tensor:
        """Whole sequences; ``residual_mask_B2`` multiplies what attention and feed-forward add."""
        batch, length, _ = x_BTD.shape
        qkv = self.queries_keys_values(x_BTD)
        q, k, v = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dtype = self.norm_query.weight.dtype  # autocast gives fewer bits than the norms have
        q = rotate(self.norm_query(q.to(dtype)), *rotary)
        k = rotate(self.norm_key(k.to(dtype)), *rotary)
        y = attend(q, k, v, mask)
        y = self.attention_out(y.transpose(1, 2).reshape(batch, length, -1))
        if residual_mask_B2 is None:
            x_BTD = x_BTD + y
            return x_BTD + self.feed(x_BTD)
        x_BTD = x_BTD + residual_mask_B2[:, 0, None, None] * y
        return x_BTD + residual_mask_B2[:, 1, None, None] * self.feed(x_BTD)

    def queries_keys_values(self, x: Tensor) -> Tensor:
        """Queries, keys and values of ``[..., D]`` side by side, with their norm."""
        projected: Tensor = self.qkv(self.norm_attention(x))
        return projected

    def values(self, x: Tensor) -> Tensor:
        """The values of ``[..., D]``, with their norm: what a token that sees itself alone gets."""
        size = len(self.qkv.weight) // 3
        if isinstance(self.qkv, nn.Linear):
            return F.linear(self.norm_attention(x), self.qkv.weight[2 * size :])
        return self.queries_keys_values(x)[..., 2 * size :]

    def feed(self, x: Tensor) -> Tensor:
        """The gated feed-forward of ``[..., D]``, with its norm."""
        gate, value = self.feed_in(self.norm_feed(x)).chunk(2, dim=-1)
        return self.feed_out(F.gelu(gate) * value)

    def step(self, x_ND: Tensor, update: CacheUpdate, keys: Tensor, values: Tensor) -> Tensor:
        """New tokens, padded to whole blocks, against one layer's cache ``[B, H, K, S]``."""
        if update.alone:  # the softmax over one score is 1
            y = in_blocks(self.values, x_ND, update.blocks)
        else:
            y = self._attended(x_ND, update, keys, values)
        x_ND = x_ND + in_blocks(self.attention_out, y, update.blocks)
        return x_ND + in_blocks(self.feed, x_ND, update.blocks)

    def remember(self, x_ND: Tensor, update: CacheUpdate, keys: Tensor, values: Tensor) -> Tensor:
        """Put new tokens into the cache, as :meth:`step` does; returns their queries."""
        count = len(update.rows)
        qkv = in_blocks(self.queries_keys_values, x_ND, update.blocks)[:count]
        q, k, v = qkv.view(count, 3, self.heads, -1).unbind(1)
        k = rotate(self.norm_key(k), *update.rotary)
        keys[update.rows, :, :, update.slots] = k.to(keys.dtype)
        values[update.rows, :, :, update.slots] = v.to(keys.dtype)
        return q

    def _attended(self, x_ND: Tensor, update: CacheUpdate, keys: Tensor, values: Tensor) -> Tensor:
        q = self.remember(x_ND, update, keys, values)
        q = rotate(self.norm_query(q), *update.rotary).to(keys.dtype) * q.shape[-1] ** -0.5
        return padded(update.attend(q, keys, values).flatten(1).to(x_ND.dtype), len(x_ND))
