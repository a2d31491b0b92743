"""Rotary positions (arXiv 2104.09864).

* :func:`rotary_table`, :func:`rotate` -- the angles of positions, and heads turned by them.

Shapes: B rows, T tokens, N tokens of all rows, H heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rotary_table", "rotate"]


def rotary_table(positions: Tensor, size: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions.

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
