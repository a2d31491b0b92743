"""Who sees whom in packed sequences: the rule that the ring cache keeps while acting.

A token sees the prompt of its own document and the live tokens less than ``window`` positions
before it. The task's ``memory`` sets what a finished timestep leaves visible: everything,
everything but its action tokens, or nothing.

* :class:`TokenRoles` -- what decides visibility, for each token.
* :func:`dense_mask`, :func:`block_mask` -- the rule for torch's scaled dot product attention and
  for its FlexAttention, which skips blocks without visible tokens.
* :func:`attend` -- attention under either.
* :func:`check_trainable` -- whether a device supports training with it.
* :func:`rotary_table`, :func:`rotate` -- the angles of positions, and heads rotated by them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_compiling

from policies.model.tensors import Tensors

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    Mask = Tensor | BlockMask

__all__ = ["rotary_table", "rotate"]


def rotary_table(positions: Tensor, size: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions.

    Args:
        positions: int64 ``[B, T]`` or ``[N]``.
        size: K, the size of a head.
        base: Base of the frequencies.

    Returns:
        float ``[B, 1, T, K / 2]`` or ``[N, 1, K / 2]`` each: they broadcast over heads.
    """
    exponent = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
    over_heads = positions[:, None, ..., None] if positions.ndim > 1 else positions[:, None, None]
    angles = over_heads.float() * base**-exponent
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the two halves of each head as pairs by the position's angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


MEMORIES = ("all", "observations", "none")
"""The task's memory, by the code that :class:`TokenRoles` holds."""
ATTENTIONS = ("auto", "dense", "flex")
"""How training's attention is computed; "auto" is "flex" on a GPU and "dense" elsewhere."""


@dataclass
class TokenRoles(Tensors):
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


def _in_sight(query: TokenRoles, key: TokenRoles, window: int) -> Tensor:
    """Whether queries may see keys that do not come after them: bool, their roles broadcast."""
    kept = (key.memories == 0) | ((key.memories == 1) & (key.actions == 0))
    near = (query.positions - key.positions) < window
    seen = (key.prompts == 1) | (near & ((query.timesteps == key.timesteps) | kept))
    return (query.documents == key.documents) & (key.documents >= 0) & seen


def dense_mask(roles: TokenRoles, window: int) -> Tensor:
    """Who sees whom: bool ``[B, 1, T, T]``; padding sees itself alone."""
    length, device = roles.documents.shape[1], roles.documents.device
    seen = _in_sight(
        roles.at((slice(None), slice(None), None)), roles.at((slice(None), None)), window
    )
    order = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    visible = order & seen
    visible |= torch.eye(length, dtype=torch.bool, device=device)
    return visible[:, None]


FLEX_BLOCK = 128
"""Queries and keys of a block that FlexAttention computes or skips."""


def block_mask(roles: TokenRoles, window: int) -> BlockMask:
    """The same for FlexAttention: which blocks are seen, and the rule inside them.

    The blocks are read off the dense mask. PyTorch's ``create_block_mask`` calls the rule once for
    each pair of tokens, vectorised: many small operations, for which a GPU waits.
    """
    from torch.nn.attention.flex_attention import BlockMask

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = _in_sight(roles.at((batch, query)), roles.at((batch, key)), window)
        return ((query >= key) & seen) | (query == key)

    rows, length = roles.documents.shape
    count = -(-length // FLEX_BLOCK)
    room = count * FLEX_BLOCK - length
    seen = F.pad(dense_mask(roles, window), (0, room, 0, room))
    pairs = seen.view(rows, 1, count, FLEX_BLOCK, count, FLEX_BLOCK).sum(dim=(3, 5))
    whole = pairs == FLEX_BLOCK**2
    parts = (pairs > 0) & ~whole
    return BlockMask.from_kv_blocks(
        *_ordered(parts), *_ordered(whole), FLEX_BLOCK, rule, (length, length)
    )


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of keys that are true for each block of queries: their number, and they first."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32), order.int()


def mask_for(roles: TokenRoles, window: int, *, attention: str = "auto") -> Mask:
    """The mask of a batch, which all blocks of the network share.

    Raises:
        ValueError: ``attention`` is not one of :data:`ATTENTIONS`.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"attention is {attention!r}: expected one of {', '.join(ATTENTIONS)}")
    if attention == "auto":
        attention = "flex" if roles.documents.device.type == "cuda" else "dense"
    return (block_mask if attention == "flex" else dense_mask)(roles, window)


def check_trainable(attention: str, device: torch.device) -> None:
    """Refuse what torch cannot train with.

    Raises:
        ValueError: FlexAttention on a CPU, where torch has no backward pass for it.
    """
    if attention == "flex" and device.type == "cpu":
        raise ValueError(
            "attention is 'flex' on a CPU, where FlexAttention cannot be trained: use 'auto'"
        )


def attend(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask: Mask, *, scale: float | None = None
) -> Tensor:
    """Softmax attention under a mask of :func:`mask_for`: ``[B, H, T, K]``.

    Under a CPU's autocast it is computed in float32: in bfloat16, PyTorch's kernel takes more than
    twice as long, forward and backward.

    Args:
        q_BHTK: Queries.
        k_BHTK: Keys.
        v_BHTK: Values.
        mask: Who sees whom.
        scale: What scores are multiplied by, with a dense mask; None is 1 / √K.
    """
    if isinstance(mask, Tensor):
        if q_BHTK.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                heads = (q_BHTK.float(), k_BHTK.float(), v_BHTK.float())
                return F.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale)
        return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, mask, scale=scale)
    dtype = v_BHTK.dtype  # as autocast does for the dense product
    flex = _flex_attention(v_BHTK.device.type)
    return flex(q_BHTK.to(dtype), k_BHTK.to(dtype), v_BHTK, block_mask=mask)


def _flex_attention(device: str) -> Callable[..., Tensor]:
    """FlexAttention, fused where there is a kernel for it; what compiles it fuses it anyway."""
    from torch.nn.attention.flex_attention import flex_attention

    if device == "cpu" or is_compiling():
        return flex_attention
    return _fused_flex_attention()


@functools.cache
def _fused_flex_attention() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
