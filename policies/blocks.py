"""Computing rows in blocks of a fixed size.

A matrix product may round a row differently when it has other rows beside it in another number.
Rows that are computed in blocks of one size, padded where they are fewer, have the same numbers
whatever the batch.

* :func:`padded` -- a batch with zero rows up to a whole number of blocks.
* :func:`in_blocks` -- a function of rows, block by block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BLOCK", "in_blocks", "padded"]

BLOCK = 32
"""Rows of a block."""


def padded(x_ND: Tensor) -> Tensor:
    """``x_ND`` with zero rows at the end up to a whole number of blocks."""
    missing = -len(x_ND) % BLOCK
    return F.pad(x_ND, (0, 0, 0, missing)) if missing else x_ND


def in_blocks(function: Callable[[Tensor], Tensor], x_ND: Tensor) -> Tensor:
    """``function`` of a whole number of blocks; on a CPU one block at a time."""
    if len(x_ND) == BLOCK or x_ND.device.type != "cpu":
        return function(x_ND)
    return torch.cat([function(block) for block in x_ND.split(BLOCK)])
