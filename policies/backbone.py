"""The transformer and its ring cache.

* :class:`Backbone` -- pre-norm blocks: rotary attention, gated feed-forward (GEGLU).
* :class:`RingCache` -- keys and values of a pinned prompt and of the newest tokens, a fixed amount
  of memory for each row.
* :func:`training_mask` -- the same visibility rule for whole packed sequences.

A token sees, of its own document: the prompt; and of the live tokens those less than ``window``
positions before it. What a finished timestep leaves visible is the task's ``memory``: everything,
everything but its action tokens, or nothing. Positions count what stays visible: after a timestep
they rewind to the end of what it leaves, so that a token's position, like its mask, is the same
in training and in deployment.

Shapes: B rows, T tokens, S cache slots, D width, H heads, K head size, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.configuration import NetworkConfig

MEMORIES = ("all", "observations", "none")
"""The task's memory, by the code that :class:`TokenRoles` holds."""


@dataclass
class RingCache:
    """Keys and values of the tokens that a row may still see.

    Slots ``[0, P)`` are the prompt's; position p >= P lives in slot ``P + (p - P) % ring``. The
    ring is a window plus one chunk long, so that no token of a chunk overwrites what another of
    the same chunk still sees.

    Attributes:
        keys, values: float ``[L, B, H, S, K]``.
        positions: int64 ``[B, S]``, position that each slot holds, -1 when empty.
        prompt: P, size of the pinned region.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    prompt: int

    @classmethod
    def empty(cls, config: NetworkConfig, *, rows: int, ring: int, like: Tensor) -> RingCache:
        """A cache for ``rows`` rows with a ring of ``ring`` slots; dtype and device of ``like``."""
        slots = config.prompt_tokens + ring + 1
        shape = (config.layers, rows, config.heads, slots, config.head_size)
        return cls(
            keys=like.new_zeros(shape),
            values=like.new_zeros(shape),
            positions=torch.full((rows, slots), -1, dtype=torch.long, device=like.device),
            prompt=config.prompt_tokens,
        )

    @property
    def nbytes(self) -> int:
        """Bytes held, fixed at construction."""
        return sum(
            t.nelement() * t.element_size() for t in (self.keys, self.values, self.positions)
        )

    def row(self, index: int) -> RingCache:
        """A view of one row."""
        part = slice(index, index + 1)
        return RingCache(
            self.keys[:, part], self.values[:, part], self.positions[part], self.prompt
        )

    def slots(self, positions_BT: Tensor) -> Tensor:
        """The slot of each position: int64 ``[B, T]``."""
        ring = self.positions.shape[1] - self.prompt - 1
        live = self.prompt + (positions_BT - self.prompt) % ring
        return torch.where(positions_BT < self.prompt, positions_BT, live)

    def mask(self, positions_BT: Tensor, window: int) -> Tensor:
        """Slots that tokens at these positions see: bool ``[B, 1, T, S]``."""
        held = self.positions[:, None, :]
        query = positions_BT[:, :, None]
        pinned = torch.arange(held.shape[-1], device=held.device) < self.prompt
        visible = (held >= 0) & (held <= query) & (pinned | (query - held < window))
        return visible[:, None]


@dataclass
class TokenRoles:
    """What decides visibility in a packed sequence, for each token: int64 ``[B, T]`` each.

    Attributes:
        documents: Document of the token, -1 for padding.
        positions: Position in its document: the prompt's tokens from 0, live ones from
            ``prompt_tokens`` on.
        timesteps: Timestep that the token belongs to, unique in its document.
        actions: 1 for action tokens.
        prompts: 1 for tokens of the prompt.
        memories: Index into :data:`MEMORIES`.
    """

    documents: Tensor
    positions: Tensor
    timesteps: Tensor
    actions: Tensor
    prompts: Tensor
    memories: Tensor


def training_mask(roles: TokenRoles, window: int) -> Tensor:
    """Who sees whom in packed sequences: bool ``[B, 1, T, T]``; padding sees itself alone."""
    length = roles.documents.shape[1]

    def pair(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :, None], x[:, None, :]

    doc_q, doc_k = pair(roles.documents)
    pos_q, pos_k = pair(roles.positions)
    step_q, step_k = pair(roles.timesteps)
    memory = roles.memories[:, None, :]
    kept = (memory == 0) | ((memory == 1) & (roles.actions[:, None, :] == 0))
    same_step = step_q == step_k
    pinned = roles.prompts[:, None, :] == 1
    seen = pinned | (((pos_q - pos_k) < window) & (same_step | kept))
    order = torch.ones(length, length, dtype=torch.bool, device=doc_q.device).tril()
    visible = order & (doc_q == doc_k) & (doc_k >= 0) & seen
    visible |= torch.eye(length, dtype=torch.bool, device=doc_q.device)
    return visible[:, None]


def rotary_table(positions: Tensor, size: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (arXiv 2104.09864): float ``[B, 1, T, size / 2]``."""
    exponent = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
    angles = positions[:, None, :, None].float() * base**-exponent
    return angles.cos(), angles.sin()


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the two halves of each head as pairs by the position's angles."""
    a, b = x_BHTK.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x_BHTK.dtype)


def attend(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention; ``mask`` bool ``[B, 1, T, S]`` is True where a query sees a key.

    A single query on a CPU goes the plain way: the fused kernel's set-up takes longer than it.
    """
    if q_BHTK.shape[2] > 1 or q_BHTK.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=mask)
    scores = (q_BHTK * q_BHTK.shape[-1] ** -0.5) @ k_BHSK.transpose(2, 3)
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ v_BHSK


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
        mask: Tensor,
        cache: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        batch, length, _ = x_BTD.shape
        qkv = self.qkv(self.norm_attention(x_BTD))
        q, k, v = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q = rotate(self.norm_query(q), *rotary)
        k = rotate(self.norm_key(k), *rotary)
        if cache is not None:
            keys, values, row, slot = cache  # [B, H, S, K] each; row and slot [B, T]
            keys[row, :, slot] = k.transpose(1, 2)
            values[row, :, slot] = v.transpose(1, 2)
            k, v = keys, values
        y = attend(q, k, v, mask)
        x_BTD = x_BTD + self.attention_out(y.transpose(1, 2).reshape(batch, length, -1))
        gate, value = self.feed_in(self.norm_feed(x_BTD)).chunk(2, dim=-1)
        return x_BTD + self.feed_out(F.gelu(gate) * value)


class Backbone(nn.Module):
    """A stack of blocks and a final norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BTD: Tensor, positions_BT: Tensor, mask: Tensor) -> Tensor:
        """Whole sequences: embeddings ``[B, T, D]`` and :func:`training_mask` to ``[B, T, D]``."""
        rotary = rotary_table(positions_BT, self.config.head_size)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotary, mask)
        return self.norm(x_BTD)

    def step(
        self, x_BTD: Tensor, positions_BT: Tensor, cache: RingCache, active: Tensor | None = None
    ) -> Tensor:
        """New tokens against the cache, which takes them in.

        Args:
            x_BTD: Embeddings of the new tokens.
            positions_BT: int64 ``[B, T]``, their positions.
            cache: The cache of these rows.
            active: bool ``[B]``; rows where it is False leave no trace in the cache and what they
                return means nothing. None: all are active.

        Returns:
            float ``[B, T, D]``.
        """
        slot = cache.slots(positions_BT)
        scratch = cache.positions.shape[1] - 1
        if active is not None:
            slot = torch.where(active[:, None], slot, scratch)
        row = torch.arange(len(slot), device=slot.device)[:, None].expand_as(slot)
        cache.positions[row, slot] = positions_BT
        cache.positions[:, scratch] = -1
        mask = cache.mask(positions_BT, self.config.window)
        if active is not None:
            mask[..., scratch] |= ~active[:, None, None]
        rotary = rotary_table(positions_BT, self.config.head_size)
        for layer, block in enumerate(self.blocks):
            entry = (cache.keys[layer], cache.values[layer], row, slot)
            x_BTD = block(x_BTD, rotary, mask, entry)
        return self.norm(x_BTD)
