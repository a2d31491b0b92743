"""A symbolic grid, with an instruction, to one embedding.

* :class:`GridEmbedding` -- the module.
* :class:`WordAttention` -- what the instruction says of each object that a grid may have.
* :class:`ResidualPatch` -- the residual block of grids and of image patches.

Shapes: N grids or texts, H and W cells, C channels, D width, L text length, S values of a symbol,
O objects.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.model.config import WORD_HEAD, NetworkConfig

__all__ = ["GridEmbedding", "ResidualPatch", "WordAttention"]


class ResidualPatch(nn.Module):
    """One ResNet v2 block (Gato, appendix C.2), its two normalised inputs modulated by the text.

    Without a text the modulation is the identity, which is the published block.
    """

    def __init__(self, channels: int, groups: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(groups, channels) for _ in range(2)])
        self.convs = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)])
        self.modulate = nn.Linear(width, 4 * channels)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        scale1, shift1, scale2, shift2 = self.modulate(condition_ND)[..., None, None].chunk(4, 1)
        h = F.gelu(self.norms[0](x_NCHW) * (1 + scale1) + shift1)
        h = self.convs[0](h)
        h = F.gelu(self.norms[1](h) * (1 + scale2) + shift2)
        return x_NCHW + self.convs[1](h)


class WordAttention(nn.Module):
    """What an instruction says of each object: the object attends to the instruction's words.

    Objects are queries. The words, each mixed with its neighbours, are keys and values; a key and a
    value of zeros stand for an instruction that says nothing of the object. It starts as nothing.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.heads = config.grid_words
        size = self.heads * WORD_HEAD
        self.query = nn.Linear(config.grid_channels, size, bias=False)
        self.key_value = nn.Linear(config.width, 2 * size, bias=False)
        self.out = nn.Linear(size, config.grid_channels, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, objects_OC: Tensor, words_NLD: Tensor, mask_NL: Tensor) -> Tensor:
        """Float ``[N, O, C]``."""
        q_OHK = self.query(objects_OC).unflatten(-1, (self.heads, WORD_HEAD))
        both = self.key_value(words_NLD).unflatten(-1, (2, self.heads, WORD_HEAD))
        k_NLHK, v_NLHK = both.unbind(2)
        scores = torch.einsum("ohk,nlhk->nhol", q_OHK, k_NLHK) * WORD_HEAD**-0.5
        scores = scores.masked_fill(~mask_NL[:, None, None], -1e9)
        weights = F.pad(scores, (0, 1)).softmax(-1)[..., :-1]
        read_NOI = torch.einsum("nhol,nlhk->nohk", weights.to(v_NLHK.dtype), v_NLHK).flatten(2)
        said: Tensor = self.out(read_NOI)
        return said


class GridEmbedding(nn.Module):
    """A symbolic grid (MiniGrid's view) to one embedding.

    Every cell is the sum of its symbols' embeddings, its position's, and what the instruction says
    of its object, which is its first two symbols (in MiniGrid, a kind and a colour); one residual
    block that the instruction modulates; then one linear map of the whole grid.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c, size = config.grid_channels, config.grid_size
        self.size, self.symbols = size, config.grid_symbols
        self.objects, self.before = config.grid_objects, config.condition_size // c
        self.before -= self.objects
        self.cells = nn.Embedding(config.grid_planes * config.grid_symbols, c)
        self.where = nn.Parameter(torch.randn(c, size, size) * 0.1)
        self.block = ResidualPatch(c, config.grid_groups, config.width)
        self.out = nn.Linear(c * size * size, config.width)
        self.words = WordAttention(config) if config.grid_words else None

    def said_of_objects(self, words_NLD: Tensor, mask_NL: Tensor) -> Tensor:
        """What instructions say of every object: float ``[N, O * C]``.

        Args:
            words_NLD: The instructions' words.
            mask_NL: Where there are words.
        """
        assert self.words is not None
        table, symbols = self.cells.weight, self.symbols
        objects = table[:symbols, None]
        if self.objects > symbols:
            objects = objects + table[symbols : 2 * symbols]
        said: Tensor = self.words(objects.flatten(0, 1), words_NLD, mask_NL)
        return said.flatten(1)

    def forward(
        self, grids: Tensor, condition_ND: Tensor, instructions: Tensor, owners: Tensor
    ) -> Tensor:
        """Embeddings float ``[N, D]``.

        Args:
            grids: uint8 ``[N, H, W, planes]``.
            condition_ND: What modulates the block.
            instructions: float ``[n, condition_size]``, encoded instructions.
            owners: int64 ``[N]``, each grid's instruction, -1 for none.
        """
        n, height, width, planes = grids.shape
        offsets = torch.arange(planes, device=grids.device) * self.symbols
        symbols = grids.long().clamp_(max=self.symbols - 1)
        x = F.embedding_bag(
            (symbols + offsets).reshape(-1, planes), self.cells.weight, mode="sum"
        )  # [N * H * W, C]
        if self.words is not None:
            x = x + self._said(symbols, instructions, owners)
        x = x.view(n, height, width, -1).permute(0, 3, 1, 2)
        x = F.pad(x, (0, self.size - width, 0, self.size - height)) + self.where
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.gelu(self.block(x, condition_ND))
        return self.out(x.permute(0, 2, 3, 1).flatten(1))

    def _said(self, symbols: Tensor, instructions: Tensor, owners: Tensor) -> Tensor:
        """What the instructions say of each cell's object: float ``[N * H * W, C]``."""
        objects = symbols[..., 0]
        if self.objects > self.symbols:
            objects = objects * self.symbols
            objects = objects + symbols[..., 1] if symbols.shape[-1] > 1 else objects
        first = owners.clamp(min=0) * (self.before + self.objects) + self.before
        table = instructions.reshape(-1, self.where.shape[0])
        said = F.embedding((first[:, None, None] + objects).flatten(1), table)
        return (said * (owners >= 0)[:, None, None]).flatten(0, 1)
