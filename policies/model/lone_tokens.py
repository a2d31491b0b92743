"""Steps of tokens that see themselves alone, in float32 on a CPU.

Where a timestep is one token and nothing is remembered, the result of attention is the token's own
value. A step of one row is then some twenty small products, and takes as long as the work around
them: here values and the map of attention's result are one matrix, and products are NumPy's, whose
library sums few rows in the order of many. PyTorch's does so from four rows on.

* :class:`LoneTokens` -- what a backbone computes of such tokens.
* :class:`LoneVectors` -- what a network does of observations that are one vector, from its numbers
  to the action's.

Shapes: N rows, D width, F feed-forward, K numbers of a vector, A actions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.model.inputs.embedding import TEXT_PLACES, Embedding
from policies.model.row_blocks import BLOCK, LARGER, BlockSizes, blocks_of

if TYPE_CHECKING:
    from policies.model.action_heads import ActionHeads
    from policies.model.block import Block

__all__ = ["LoneTokens", "LoneVectors"]

REGISTER = 16
"""Float32 numbers of a processor's widest registers."""

Floats = NDArray[np.float32]


class LoneTokens:
    """What a backbone computes of tokens that see themselves alone.

    Args:
        blocks: Its blocks; their weights are copied.
        norm: Its last norm.
    """

    def __init__(self, blocks: nn.ModuleList, norm: nn.LayerNorm) -> None:
        self._blocks = [_LoneBlock.of(block) for block in blocks]  # type: ignore[arg-type]
        self._norm, self._sizes = _Norm.of(norm), BlockSizes()

    def hidden(self, x_ND: Tensor) -> Tensor:
        """Hidden vectors of tokens, float32 ``[N, D]`` both; a row's are the same in any batch."""
        sizes = self._sizes.proven(lambda rows: self.step(_random(rows, x_ND.shape[1])), LARGER)
        x = x_ND.numpy()
        parts = [self.step(_filled(x[part], size)) for part, size in _blocks(len(x), sizes)]
        return parts[0][: len(x)] if len(parts) == 1 else torch.cat(parts)[: len(x)]

    def step(self, x_ND: Floats) -> Tensor:
        """Hidden vectors of the rows of a block, which are written over."""
        tokens_ND = torch.from_numpy(x_ND)
        for block in self._blocks:
            block.add_to(tokens_ND, x_ND)
        return self._norm(tokens_ND)


class LoneVectors:
    """What a network computes of observations that are one vector, for actions side by side.

    Args:
        tokens: Its backbone.
        embedding: Its embedding; weights are copied.
        heads: Its action heads, which regress numbers.
        size: K.
        place: Place of the vector among a body's contributions.
        actions: A.
    """

    def __init__(
        self,
        tokens: LoneTokens,
        embedding: Embedding,
        heads: ActionHeads,
        *,
        size: int,
        place: int,
        actions: int,
    ) -> None:
        assert heads.place is not None, "actions are chosen side by side"
        assert heads.number is not None, "the network's continuous_head is 'regression'"
        first, _, second = embedding.vector
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        self._tokens, self._sizes, self._size = tokens, BlockSizes(), size
        self._first, self._second = _transposed(first.weight[:, :size]), _transposed(second.weight)
        # a row for each task, and a last one for none, which is number -1
        known, bias = embedding.task, second.bias + embedding.place.weight[TEXT_PLACES + place]
        self._first_bias = _rows_of_tasks(None if known is None else known.vector, first.bias)
        self._second_bias = _rows_of_tasks(None if known is None else known.token, bias)
        # column D is the number to which each action adds its own; products of few rows are summed
        # in another order where columns do not fill registers
        width = heads.expand.out_features
        spare = -(width + 1) % REGISTER
        expand = torch.cat([heads.expand.weight, heads.number.weight])
        bias = torch.cat([heads.expand.bias, heads.number.bias])
        places = F.pad(heads.place.weight[:actions], (0, 1)) + bias
        self._expand = _transposed(F.pad(expand, (0, 0, 0, spare)))
        self._places = F.pad(places, (0, spare)).detach().numpy()
        self._weights = heads.number_at.weight[:actions].detach()

    def numbers(self, vectors_NK: Floats, tasks_N: NDArray[np.int64]) -> Tensor:
        """Actions' numbers, float32 ``[N, A]``, legal ones in [-1, 1].

        Args:
            vectors_NK: The vectors.
            tasks_N: Rows of the tasks' embeddings, -1 for none.
        """
        count, parts = len(vectors_NK), []
        sizes = self._sizes.proven(self._random_numbers, LARGER)
        for part, size in _blocks(count, sizes):
            vectors, tasks = _filled(vectors_NK[part], size), _filled(tasks_N[part], size)
            parts.append(self._numbers(self._hidden(vectors, tasks)))
        return parts[0][:count] if len(parts) == 1 else torch.cat(parts)[:count]

    def _hidden(self, vectors_NK: Floats, tasks_N: NDArray[np.int64]) -> Tensor:
        inner = vectors_NK @ self._first
        inner += self._first_bias.take(tasks_N, 0)
        x_ND = _gelu(inner.T).T @ self._second
        x_ND += self._second_bias.take(tasks_N, 0)
        return self._tokens.step(x_ND)

    def _numbers(self, hidden_ND: Tensor) -> Tensor:
        both = (hidden_ND.numpy() @ self._expand)[:, None] + self._places
        width = self._weights.shape[1]
        inner = torch.from_numpy(_gelu(both[..., :width]))
        return (inner * self._weights).sum(-1) + torch.from_numpy(both[..., width])

    def _random_numbers(self, rows: int) -> Tensor:
        """Numbers of random vectors, and their hidden vectors: ``[rows, n]``."""
        hidden_ND = self._hidden(_random(rows, self._size), np.zeros(rows, np.int64))
        return torch.cat([hidden_ND, self._numbers(hidden_ND)], 1)


@dataclass(frozen=True)
class _Norm:
    """A layer norm without its module."""

    shape: tuple[int, ...]
    weight: Tensor
    bias: Tensor
    epsilon: float

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> _Norm:
        return cls(norm.normalized_shape, norm.weight.detach(), norm.bias.detach(), norm.eps)

    def __call__(self, x_ND: Tensor) -> Tensor:
        return torch.layer_norm(x_ND, self.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class _LoneBlock:
    """A block: values and the map of attention's result in one, ``[D, D]``, then feed-forward's
    ``[D, 2F]`` and ``[F, D]``."""

    norm_attention: _Norm
    attention_DD: Floats
    norm_feed: _Norm
    feed_in: Floats
    feed_out: Floats

    @classmethod
    def of(cls, block: Block) -> _LoneBlock:
        values = block.qkv.weight[2 * len(block.qkv.weight) // 3 :]
        attention = block.attention_out.weight.double() @ values.double()
        return cls(
            _Norm.of(block.norm_attention),
            _transposed(attention.float()),
            _Norm.of(block.norm_feed),
            _transposed(block.feed_in.weight),
            _transposed(block.feed_out.weight),
        )

    def add_to(self, tokens_ND: Tensor, x_ND: Floats) -> None:
        """A step; both are the same memory, which is written."""
        x_ND += self.norm_attention(tokens_ND).numpy() @ self.attention_DD
        both = self.norm_feed(tokens_ND).numpy() @ self.feed_in
        half = both.shape[1] // 2
        gated = _gelu(both[:, :half])
        gated *= both[:, half:]
        x_ND += gated @ self.feed_out


def _gelu(x: Floats) -> Floats:
    """The GELU; PyTorch's is quicker where few numbers do not lie in order."""
    result: Floats = F.gelu(torch.from_numpy(x)).numpy()
    return result


def _transposed(weight: Tensor) -> Floats:
    """A map's weights ``[O, I]`` as the right side of a product: ``[I, O]``, in order."""
    return np.ascontiguousarray(weight.detach().numpy().T)


def _rows_of_tasks(table: nn.Embedding | None, bias: Tensor) -> Floats:
    """A bias for each task, and one for none."""
    rows = bias[None] if table is None else F.pad(table.weight, (0, 0, 0, 1)) + bias
    return rows.detach().numpy()


def _blocks(count: int, sizes: tuple[int, ...]) -> Iterator[tuple[slice, int]]:
    """The rows of each block, and its size, which is larger where the last is not full."""
    first = 0
    for size in blocks_of(count, sizes):
        yield slice(first, first + size), size
        first += size


def _filled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """A copy of rows with zeros at the end, up to a block's size."""
    block = np.zeros((size, *rows.shape[1:]), rows.dtype)
    block[: len(rows)] = rows
    return block


def _random(rows: int, size: int) -> Floats:
    """Rows that repeat a block of random ones."""
    drawn = np.random.default_rng(0).standard_normal((BLOCK, size), np.float32)
    return drawn[np.arange(rows) % BLOCK]
