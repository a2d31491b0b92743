"""The transformer: whole sequences, and steps against a cache.

* :class:`Backbone` -- pre-norm blocks: rotary attention, gated feed-forward (GEGLU).
* :func:`compile_blocks` -- fewer and larger kernels for whole sequences.

:mod:`policies.model.attention` has the rule of who sees whom in whole packed sequences, and
:mod:`policies.model.kv_cache` what a step sees. Positions count what stays visible: after a
timestep they rewind to the end of what it leaves, so that a token's position, like its mask, is
the same in training and in deployment.

Shapes: B rows, T tokens, N new tokens of all rows, S cache slots, D width, H heads, K head size,
L layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from policies.model.attention import TokenRoles, mask_for, rotary_table
from policies.model.block import Block
from policies.model.config import NetworkConfig
from policies.model.cuda_graphs import recordable
from policies.model.kv_cache import CacheUpdate, RingCache
from policies.model.lone_tokens import LoneTokens
from policies.model.row_blocks import (
    BLOCK,
    LARGER,
    BlockSizes,
    blocks_of,
    is_exact,
    padded,
    repeated,
)

if TYPE_CHECKING:
    from policies.model.attention import Mask


BlockStep = Callable[[Block, Tensor, CacheUpdate, Tensor, Tensor], Tensor]


@functools.cache
def compiled_step(
    shape: tuple[int, ...], cached: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> BlockStep:
    """:meth:`Block.step` compiled by PyTorch, once for all blocks of one size.

    PyTorch gives up on a function that it has compiled for eight shapes, so each shape has a copy
    of the function.

    Args:
        shape: Of the new tokens.
        cached: Of the cache's keys.
        dtype: Of the weights.
        device: Where they are.
    """
    step = FunctionType(Block.step.__code__.replace(), Block.step.__globals__, "step")
    return torch.compile(step, dynamic=False)


def compile_blocks(backbone: Backbone) -> None:
    """Have PyTorch compile the blocks for whole sequences of one shape, once for all of them."""
    for block in backbone.blocks:
        block.compile(dynamic=False)


class Backbone(nn.Module):
    """A stack of blocks and a final norm.

    Attributes:
        recompute: Whether the backward pass recomputes a block's activations.
        attention: How whole sequences attend: "dense", "flex", or "auto" by the device; see
            :mod:`policies.model.attention`. This changes only the rounding.
        recorded: Whether a GPU records steps, see :mod:`policies.model.cuda_graphs`.
        compiled: Whether PyTorch compiles them, too.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config, self.recompute, self.attention = config, False, "auto"
        self.recorded, self.compiled = True, False
        self._block_sizes = BlockSizes()
        self._lone_tokens: LoneTokens | None = None
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)

    def freeze(self) -> None:
        """Drop what was computed from weights that may have changed since."""
        self._lone_tokens = None

    @property
    def lone_tokens(self) -> LoneTokens:
        """Steps of tokens that see themselves alone, in float32 on a CPU."""
        if self._lone_tokens is None:
            self._lone_tokens = LoneTokens(self.blocks, self.norm)
        return self._lone_tokens

    def visibility(self, roles: TokenRoles) -> Mask:
        """Who sees whom in packed sequences, made once for all blocks."""
        return mask_for(roles, self.config.window, attention=self.attention)

    def forward(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        mask: Mask,
        residual_mask_BL2: Tensor | None = None,
    ) -> Tensor:
        """Whole sequences.

        Args:
            x_BTD: Embeddings.
            positions_BT: int64, of each token.
            mask: From :meth:`visibility`.
            residual_mask_BL2: float32, factors of each block's attention and feed-forward in
                training: 0 where stochastic depth skips them (arXiv 1603.09382). None keeps all.

        Returns:
            float ``[B, T, D]``.
        """
        rotary = rotary_table(positions_BT, self.config.head_size)
        residual_mask_BL2 = residual_mask_BL2 if self.training else None
        for layer, block in enumerate(self.blocks):
            layer_mask_B2 = None if residual_mask_BL2 is None else residual_mask_BL2[:, layer]
            if self.recompute and self.training:
                x_BTD = checkpoint(block, x_BTD, rotary, mask, layer_mask_B2, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, rotary, mask, layer_mask_B2)
        return self.norm(x_BTD)

    def step(
        self,
        x_ND: Tensor,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        cache: RingCache,
        *,
        wanted: bool = True,
    ) -> Tensor:
        """New tokens against the cache, which stores them.

        Args:
            x_ND: Embeddings of the new tokens.
            rows: int64 ``[N]``, the row of each, ascending.
            positions: int64 ``[N]``, their positions.
            cache: The cache of all rows. Rows without a token stay as they are.
            wanted: Whether their hidden vectors are; if not, the last block stores them and
                computes no more, and what is returned means nothing.

        Returns:
            float ``[N, D]``.
        """
        if not cache.positions.shape[1] and is_exact(x_ND):
            return self.lone_tokens.hidden(x_ND)
        placed = cache.place(rows, positions)
        if cache.keys.device.type == "cpu" and cache.keys.dtype == torch.bfloat16:
            return self._step_quantized(x_ND, CacheUpdate(rows, placed, cache, self.config), cache)
        work = functools.partial(self._step, rows=rows, cache=cache, wanted=wanted)
        if not self.compiled and not (self.recorded and recordable(x_ND)):
            return work(x_ND, placed)
        again = work
        if self.compiled:
            like = x_ND.shape, cache.keys.shape, x_ND.dtype, x_ND.device
            again = functools.partial(work, step=compiled_step(*like))
        return cache.graphs.play((self, rows.tobytes(), wanted), work, again, x_ND, placed)

    def _step(
        self,
        x_ND: Tensor,
        placed: Tensor,
        *,
        rows: NDArray[np.int64],
        cache: RingCache,
        wanted: bool,
        step: BlockStep = Block.step,
    ) -> Tensor:
        """A step that does the same for all values of its two tensors."""
        blocks = self._blocks_of(x_ND)
        update = CacheUpdate(rows, placed, cache, self.config, blocks)
        x_ND = padded(x_ND, sum(blocks)) if blocks else x_ND
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if not wanted and not update.alone and layer == len(self.blocks) - 1:
                block.remember(x_ND, update, cache.keys[layer], cache.values[layer])
                break
            x_ND = step(block, x_ND, update, cache.keys[layer], cache.values[layer])
        return self.norm(x_ND)[: len(rows)]

    def _blocks_of(self, x_ND: Tensor) -> tuple[int, ...]:
        """Sizes of the blocks that new tokens are computed in where rows are exact, or none."""
        if not is_exact(x_ND):
            return ()
        return blocks_of(len(x_ND), self._block_sizes.proven(self._first_block, LARGER))

    def _first_block(self, rows: int) -> Tensor:
        """What the first block computes of random rows; all blocks have the same shapes."""
        block = self.blocks[0]
        assert isinstance(block, Block)
        generator = torch.Generator().manual_seed(0)
        x, y = (
            repeated(torch.randn(BLOCK, size, generator=generator), rows)
            for size in (self.config.width, self.config.heads * self.config.head_size)
        )
        parts = block.queries_keys_values(x), block.attention_out(y), block.feed(x)
        return torch.cat(parts, 1)

    def _step_quantized(self, x_ND: Tensor, update: CacheUpdate, cache: RingCache) -> Tensor:
        """New tokens on a CPU, with weights and a cache of fewer bits."""
        from policies.model import cpu_kernels

        wide_ND = x_ND.to(torch.float32, copy=True)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            cpu_kernels.step(block, wide_ND, update, cache.keys[layer], cache.values[layer])
        return self.norm(wide_ND.to(x_ND.dtype))
