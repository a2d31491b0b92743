"""Computing rows in blocks of a fixed size.

A matrix product may round a row differently if the number of other rows changes. Blocks of a fixed
size, padded if they are smaller, give every row the same numbers in any batch. This holds for
float32 on a CPU; GPUs and fewer bits are chosen for speed instead.

* :func:`block_size` -- how many rows are computed together.
* :func:`padded` -- a batch with zero rows up to a whole number of blocks.
* :func:`in_blocks` -- a function of rows, block by block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BLOCK", "block_size", "in_blocks", "padded"]

BLOCK = 32
"""Rows of a block."""


def block_size(x_ND: Tensor) -> int:
    """Rows that are computed together: a block's, or all."""
    exact = x_ND.device.type == "cpu" and x_ND.dtype == torch.float32
    return BLOCK if exact else max(1, len(x_ND))


def padded(x_ND: Tensor) -> Tensor:
    """``x_ND`` with zero rows at the end up to a whole number of blocks."""
    missing = -len(x_ND) % block_size(x_ND)
    return F.pad(x_ND, (0, 0, 0, missing)) if missing else x_ND


def in_blocks(function: Callable[[Tensor], Tensor], x_ND: Tensor) -> Tensor:
    """``function`` of a whole number of blocks, one block at a time."""
    size = block_size(x_ND)
    if len(x_ND) == size:
        return function(x_ND)
    return torch.cat([function(block) for block in x_ND.split(size)])
