"""One of GPT-Neo's blocks.

* :class:`Block` -- attention and a feed-forward, pre-norm.
* :class:`Attention`, :class:`FeedForward` -- its maps.

GPT-Neo does not scale its attention scores by 1/√K. Modules have the names of the published
tensors.

Shapes: B rows, T tokens, D width, H heads, K head size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from policies.jat.config import JatConfig
from policies.model.attention import attend


class Attention(nn.Module):
    """Projections of one block's attention."""

    def __init__(self, config: JatConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_heads
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width)

    def projected(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values: each ``[..., H, K]``."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        return [project(x).unflatten(-1, (self.heads, -1)) for project in projections]


class FeedForward(nn.Module):
    """Two linear maps and GELU's tanh form."""

    def __init__(self, config: JatConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.feed_forward)
        self.c_proj = nn.Linear(config.feed_forward, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` to ``[..., D]``."""
        inner: Tensor = F.gelu(self.c_fc(x), approximate="tanh")
        return self.c_proj(inner)


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self, config: JatConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.attn = nn.ModuleDict({"attention": Attention(config)})
        self.ln_2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = FeedForward(config)

    @property
    def attention(self) -> Attention:
        """The attention's projections."""
        module = self.attn["attention"]
        assert isinstance(module, Attention)
        return module

    def forward(self, x_BTD: Tensor, visible: Tensor) -> Tensor:
        """Whole sequences: ``[B, T, D]`` to the same; ``visible`` is bool, ``[T, T]`` for all."""
        q, k, v = (part.transpose(1, 2) for part in self.attention.projected(self.ln_1(x_BTD)))
        attended = attend(q, k, v, visible, scale=1.0)
        return self.finish(x_BTD, attended.transpose(1, 2))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream after attention ``[..., H, K]`` and the feed-forward."""
        x = x + self.attention.out_proj(attended.flatten(-2))
        return x + self.mlp(self.ln_2(x))
