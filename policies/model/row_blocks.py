"""Computing rows in blocks of fixed sizes.

A matrix product may round a row differently if the number of other rows changes. Blocks of a fixed
size, padded if they are smaller, give every row the same numbers in any batch. So do smaller blocks
whose kernels sum in the same order, which is tried on the machine at hand before they are used.
This holds for float32 on a CPU; GPUs and fewer bits are chosen for speed instead.

* :func:`is_exact` -- whether the promise holds for a tensor.
* :class:`BlockSizes` -- which smaller blocks keep it.
* :func:`padded` -- rows with zeros at the end up to whole blocks.
* :func:`in_blocks` -- a function of rows, block by block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BLOCK", "BlockSizes", "in_blocks", "is_exact", "padded"]

BLOCK = 32
"""Rows of a whole block."""

SMALLER = (1, 2, 4, 8, 16)
"""Rows that the last block may have instead, the smallest that is enough."""


def is_exact(x: Tensor) -> bool:
    """Whether a row of ``x`` has the same numbers in any batch: on a CPU in float32."""
    return x.device.type == "cpu" and x.dtype == torch.float32


class BlockSizes:
    """Sizes of blocks in which a computation gives a row the numbers that it has in a whole block.

    A processor's matrix library may sum in another order in small products, and which are small
    depends on the library, the shapes and the number of threads. So each size is tried once, with
    random rows, for each number of threads.
    """

    def __init__(self) -> None:
        self._proven: dict[int, tuple[int, ...]] = {}

    def proven(self, compute: Callable[[int], Tensor]) -> tuple[int, ...]:
        """The sizes, ascending; :data:`BLOCK` is the last.

        Args:
            compute: Results of the first ``n`` of some fixed random rows, at most :data:`BLOCK`:
                ``[n, ...]``.
        """
        threads = torch.get_num_threads()
        if threads not in self._proven:
            whole = compute(BLOCK)
            same = [size for size in SMALLER if torch.equal(compute(size), whole[:size])]
            self._proven[threads] = (*same, BLOCK)
        return self._proven[threads]


def rows_in_blocks(count: int, sizes: tuple[int, ...]) -> int:
    """Rows of the blocks that ``count`` rows are computed in."""
    rest = count % BLOCK
    return count - rest + (next(size for size in sizes if size >= rest) if rest else 0)


def padded(x_ND: Tensor, rows: int) -> Tensor:
    """``x_ND`` with zero rows at the end, up to ``rows``."""
    missing = rows - len(x_ND)
    return F.pad(x_ND, (0, 0, 0, missing)) if missing else x_ND


def in_blocks(function: Callable[[Tensor], Tensor], x_ND: Tensor) -> Tensor:
    """``function`` of rows, one block at a time where rows are exact."""
    if not is_exact(x_ND) or len(x_ND) <= BLOCK:
        return function(x_ND)
    return torch.cat([function(block) for block in x_ND.split(BLOCK)])
