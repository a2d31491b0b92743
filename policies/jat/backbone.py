"""GPT-Neo: learned positions, global and local attention, whole sequences and cached steps.

* :class:`Backbone` -- the blocks, the text table and the positions.

``window_size`` tokens are all that a local block sees. Modules have the names of the published
tensors.

Shapes: B rows, T tokens, S cache slots, D width, H heads, K head size, L layers, N tokens of all
rows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from policies.jat.block import Block
from policies.jat.cache import TokenCache
from policies.jat.config import JatConfig
from policies.model.row_blocks import BLOCK, BlockSizes, is_exact, padded, rows_in_blocks


class Backbone(nn.Module):
    """GPT-Neo's blocks, with the table of text tokens and that of positions.

    Attributes:
        recompute: Whether training computes activations again in the backward pass.
    """

    recompute: bool = False

    def __init__(self, config: JatConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self._block_sizes = BlockSizes()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Whole sequences, at positions from 0 on.

        Args:
            x_BTD: Embeddings, without positions.
            mask_BT: bool, False for padding, which no token sees; None has none.

        Returns:
            float ``[B, T, D]``; what it holds for padding means nothing.

        Raises:
            ValueError: There are more tokens than positions.
        """
        count, most = x_BTD.shape[1], self.config.max_position_embeddings
        if count > most:
            raise ValueError(f"sequences have {count} tokens: expected at most {most}; cut them")
        order = torch.arange(count, device=x_BTD.device)
        distance_TT = order[:, None] - order
        visible = {"global": distance_TT >= 0}
        visible["local"] = visible["global"] & (distance_TT < self.config.window_size)
        if mask_BT is not None:
            itself = distance_TT == 0  # padding sees itself, so that it has numbers at all
            seen_BTT = mask_BT[:, None, :].bool() | itself
            visible = {kind: (seen & seen_BTT)[:, None] for kind, seen in visible.items()}
        x_BTD = x_BTD + self.wpe(order)
        for block, kind in zip(self.h, self.config.layers, strict=True):
            if self.recompute and self.training:
                x_BTD = checkpoint(block, x_BTD, visible[kind], use_reentrant=False)
            else:
                x_BTD = block(x_BTD, visible[kind])
        return self.ln_f(x_BTD)

    def step(
        self,
        x_BTD: Tensor,
        orders_BT: Tensor,
        positions_BT: Tensor,
        cache: TokenCache,
        first_visible_B: Tensor,
        *,
        wanted: int = 1,
    ) -> Tensor:
        """New tokens against the cache, which stores them. A row's numbers are its own.

        Args:
            x_BTD: Embeddings, without positions.
            orders_BT: int64, each token's number in its episode, from which its slot follows and
                who sees it; -1 where a row has fewer tokens than T.
            positions_BT: int64, the learned position of each.
            cache: The cache of these rows.
            first_visible_B: int64, the oldest order that a row still sees.
            wanted: W, tokens at the end of each row whose hidden vectors are asked for.

        Returns:
            float ``[B, W, D]``.
        """
        rows, _, width = x_BTD.shape
        slots_BT = cache.place(orders_BT)
        visible = cache.visible(orders_BT, first_visible_B, self.config.window_size)
        x_BTD = x_BTD + self.wpe(positions_BT)
        step = self._step_compiled if cache.compiled else self._step
        hidden_ND = step(x_BTD, slots_BT, visible, cache, wanted)
        return self.ln_f(hidden_ND[: rows * wanted]).view(rows, wanted, width)

    def _step(
        self,
        x_BTD: Tensor,
        slots_BT: Tensor,
        visible: dict[str, Tensor],
        cache: TokenCache,
        wanted: int,
    ) -> Tensor:
        """The blocks by PyTorch: ``[B * W, D]``, in float32 on a CPU padded to whole blocks."""
        (rows, tokens), last = slots_BT.shape, len(self.h) - 1
        owners_N = torch.arange(rows, device=slots_BT.device).repeat_interleave(tokens)
        slots_N, count = slots_BT.flatten(), rows * tokens
        x_ND = self._in_blocks(x_BTD.flatten(0, 1))
        for layer, (block, kind) in enumerate(zip(self.h, self.config.layers, strict=True)):
            assert isinstance(block, Block)
            q_NHK, k_NHK, v_NHK = block.attention.projected(block.ln_1(x_ND))
            keys, values = cache.keys[layer], cache.values[layer]
            keys[owners_N, :, slots_N] = k_NHK[:count]
            values[owners_N, :, slots_N] = v_NHK[:count]
            q = q_NHK[:count].unflatten(0, (rows, tokens)).transpose(1, 2)
            attended = F.scaled_dot_product_attention(q, keys, values, visible[kind], scale=1.0)
            if layer == last:  # of the other tokens, keys and values are all that is read
                x_ND = x_ND[:count].unflatten(0, (rows, tokens))[:, tokens - wanted :].flatten(0, 1)
                attended, count = attended[:, :, tokens - wanted :], len(x_ND)
                x_ND = self._in_blocks(x_ND)
            attended_NHK = attended.transpose(1, 2).flatten(0, 1)
            if len(x_ND) > count:
                attended_NHK = F.pad(attended_NHK, (0, 0, 0, 0, 0, len(x_ND) - count))
            x_ND = block.finish(x_ND, attended_NHK)
        return x_ND

    def _step_compiled(
        self,
        x_BTD: Tensor,
        slots_BT: Tensor,
        visible: dict[str, Tensor],
        cache: TokenCache,
        wanted: int,
    ) -> Tensor:
        """The blocks in few bits on a CPU: ``[B * W, D]``."""
        from policies.jat import cpu_kernels

        biases = {
            kind: torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)[:, 0]
            for kind, seen in visible.items()
        }
        hidden_ND = cpu_kernels.step(
            [block for block in self.h if isinstance(block, Block)],
            x_BTD,
            slots_BT,
            [biases[kind] for kind in self.config.layers],
            cache,
            wanted,
        )
        return hidden_ND.to(x_BTD.dtype)

    def _in_blocks(self, x_ND: Tensor) -> Tensor:
        """Rows padded to whole blocks where they are exact."""
        if not is_exact(x_ND):
            return x_ND
        sizes = self._block_sizes.proven(self._first_block)
        return padded(x_ND, rows_in_blocks(len(x_ND), sizes))

    def _first_block(self, rows: int) -> Tensor:
        """What the first block computes of random rows; all blocks have the same shapes."""
        block = self.h[0]
        assert isinstance(block, Block)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(BLOCK, self.config.hidden_size, generator=generator)[:rows]
        attended = torch.stack(block.attention.projected(x))
        return torch.cat([*attended.flatten(2), block.finish(x, attended[0])], 1)
