"""The Trajectory Transformer's network (arXiv 2106.02039, section 3.1).

All numbers of a transition are tokens, one after another: observation, action, reward, return. Each
is predicted from those before it, by an output layer of its dimension. The return is predicted
and never read: its token is the same whatever it is, since no return is known at play.

* :class:`TtConfig` -- its sizes.
* :class:`TtBatch` -- stretches of episodes.
* :class:`TtNetwork` -- the module.

Shapes: B rows, T tokens, N new tokens, V bins, D width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gato_gym.files.bounded_io import as_type
from gato_gym.ranges import check_range
from policies.model.config import NetworkConfig
from policies.model.kv_cache import RingCache
from policies.model.row_blocks import (
    BLOCK,
    LARGER,
    BlockSizes,
    blocks_of,
    in_blocks,
    is_exact,
    padded,
    repeated,
)
from policies.model.tensors import Tensors
from policies.model.transformer import Backbone


@dataclass(frozen=True)
class TtConfig:
    """Sizes.

    Attributes:
        network: Of the blocks.
        observations: Numbers of an observation.
        actions: Positions of an action.
        bins: V, of each dimension.
        context: Transitions of a stretch in training, and of past and plan together at play.
        discount: Of the returns.

    Raises:
        ValueError: A size is out of range.
    """

    network: NetworkConfig
    observations: int
    actions: int
    bins: int = 100
    context: int = 10
    discount: float = 0.99

    def __post_init__(self) -> None:
        check_range(self, "observations", "actions", low=1, high=2**12)
        check_range(self, "bins", "context", low=2, high=2**12)
        check_range(self, "discount", high=1, above=True)

    observation_heads = False

    @property
    def dims(self) -> int:
        """Tokens of a transition."""
        return self.observations + self.actions + 2

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "network": self.network.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TtConfig:
        """The sizes that :meth:`to_json` wrote.

        Raises:
            ValueError: A field is unknown or of another type.
        """
        sizes = dict(values)
        network = NetworkConfig.from_json(sizes.pop("network", {}))
        as_type(dict[str, float], sizes, "network")
        if unknown := sorted(sizes.keys() - {f.name for f in dataclasses.fields(cls)}):
            raise ValueError(f"network has the unknown fields {unknown}")
        return cls(network, **sizes)


@dataclass
class TtBatch(Tensors):
    """Stretches of episodes, the shorter ones padded at their end.

    Attributes:
        tokens: int64 ``[B, T]``, bins; T is a number of whole transitions.
        mask: bool ``[B, T]``, False for padding.
        task_tokens: Tokens of the task, by id.
    """

    tokens: Tensor
    mask: Tensor
    task_tokens: dict[str, int] = field(default_factory=dict)


class TtNetwork(nn.Module):
    """The transformer over the dimensions of transitions.

    Args:
        config: Its sizes; the window holds a whole context.

    Attributes:
        edges: float32 ``[dims, V + 1]``, the bins; not trained, and kept with the weights.
    """

    edges: Tensor

    def __init__(self, config: TtConfig) -> None:
        super().__init__()
        if config.dims * config.context > config.network.window:
            raise ValueError(
                f"window is {config.network.window} tokens: expected at least those of a context, "
                f"{config.dims * config.context}"
            )
        self.config, dims, width = config, config.dims, config.network.width
        self._head_sizes = BlockSizes()
        self.register_buffer("edges", torch.zeros(dims, config.bins + 1))
        self.table = nn.Embedding(dims * config.bins, width)
        self.backbone = Backbone(config.network)
        self.heads = nn.Parameter(torch.randn(dims, config.bins, width) * 0.02)
        self.biases = nn.Parameter(torch.zeros(dims, config.bins))
        nn.init.normal_(self.table.weight, std=0.02)

    def embed(self, tokens: Tensor, dimensions: Tensor) -> Tensor:
        """Embeddings of bins, int64 ``[...]``, of dimensions that broadcast: ``[..., D]``."""
        read = tokens * (dimensions < self.config.dims - 1)
        return self.table(read + dimensions * self.config.bins)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the token after each of whole sequences: float32 ``[B, T, V]``."""
        count = tokens_BT.shape[1]
        places = torch.arange(count, device=tokens_BT.device)
        causal = torch.ones(count, count, dtype=torch.bool, device=tokens_BT.device).tril()
        dimensions = places % self.config.dims
        x_BTD = self.backbone(
            self.embed(tokens_BT, dimensions), places.expand_as(tokens_BT), causal[None, None]
        )
        following = (dimensions + 1) % self.config.dims
        return self.logits(x_BTD, following)

    def logits(self, x: Tensor, dimensions: Tensor) -> Tensor:
        """Logits of bins of dimensions int64 ``[T]``, from ``[B, T, D]``: float32 ``[B, T, V]``."""
        scores = torch.einsum("btd,tvd->btv", x, self.heads[dimensions].to(x))
        return scores.float() + self.biases[dimensions]

    def next_logits(self, x_BD: Tensor, dimension: int) -> Tensor:
        """Logits of one dimension's bins, which do not depend on the other rows: ``[B, V]``."""
        count = len(x_BD)
        if not is_exact(x_BD):
            return self._scores(x_BD, dimension)
        blocks = blocks_of(count, self._head_sizes.proven(self._random_scores, LARGER))
        function = functools.partial(self._scores, dimension=dimension)
        return in_blocks(function, padded(x_BD, sum(blocks)), blocks)[:count]

    def _scores(self, x_BD: Tensor, dimension: int) -> Tensor:
        head_VD = self.heads[dimension].to(x_BD)
        return F.linear(x_BD, head_VD).float() + self.biases[dimension]

    def _random_scores(self, rows: int) -> Tensor:
        """Logits of random rows; all dimensions have the same shapes."""
        generator = torch.Generator().manual_seed(0)
        x_BD = torch.randn(BLOCK, self.config.network.width, generator=generator)
        return self._scores(repeated(x_BD, rows), 0)

    def errors(self, batch: TtBatch) -> tuple[Tensor, Tensor]:
        """Of each token but the first its cross-entropy, and 1 where another is likelier.

        Returns:
            float32 ``[B, T - 1]`` twice; those of padding mean nothing.
        """
        logits, labels = self(batch.tokens)[:, :-1], batch.tokens[:, 1:]
        errors = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return errors, (logits.detach().argmax(-1) != labels).float()

    def empty_cache(self, rows: int, transitions: int | None = None) -> RingCache:
        """A cache that holds so many transitions; None is a whole context."""
        slots = self.config.dims * (transitions or self.config.context)
        return RingCache.empty(
            self.config.network, rows=rows, ring=slots, pinned=0, like=self.table.weight
        )

    def step(self, tokens_BT: Tensor, first: int, cache: RingCache) -> Tensor:
        """Logits of the token after the last, of new tokens against a cache, which stores them.

        Args:
            tokens_BT: int64, new tokens of every row of the cache.
            first: Number of the first of them in the sequence.
            cache: Of the tokens before.

        Returns:
            float32 ``[B, V]``.
        """
        rows, count = tokens_BT.shape
        places = torch.arange(first, first + count, device=tokens_BT.device)
        x = self.embed(tokens_BT, places % self.config.dims).flatten(0, 1)
        owners: NDArray[np.int64] = np.repeat(np.arange(rows), count)
        positions = np.tile(np.arange(first, first + count), rows)
        hidden = self.backbone.step(x, owners, positions, cache).unflatten(0, (rows, count))
        return self.next_logits(hidden[:, -1], (first + count) % self.config.dims)
