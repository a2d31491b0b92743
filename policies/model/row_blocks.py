"""Computing rows in blocks of fixed sizes.

A matrix product may round a row differently if the number of other rows changes. Blocks of a fixed
size, padded if they are smaller, give every row the same numbers in any batch. So do smaller and
larger blocks whose kernels sum in the same order, which is tried on the machine at hand before they
are used. This holds for float32 on a CPU; GPUs and fewer bits are chosen for speed instead.

* :func:`is_exact` -- whether the promise holds for a tensor.
* :class:`BlockSizes` -- which other blocks keep it.
* :func:`blocks_of` -- the blocks that some rows are computed in.
* :func:`padded` -- rows with zeros at the end up to whole blocks.
* :func:`in_blocks` -- a function of rows, block by block.
* :func:`repeated` -- random rows for any size of a block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BLOCK", "LARGER", "BlockSizes", "in_blocks", "is_exact", "padded"]

BLOCK = 32
"""Rows of a whole block."""

SMALLER = (1, 2, 4, 8, 16)
"""Rows that the last block may have instead, the smallest that is enough."""

LARGER = (64, 128, 256)
"""Rows that blocks may have where there are many; fewer products take less time around them."""


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

    def proven(
        self, compute: Callable[[int], Tensor], larger: tuple[int, ...] = ()
    ) -> tuple[int, ...]:
        """The sizes, ascending, :data:`BLOCK` among them.

        Args:
            compute: Results of ``n`` rows, which repeat :data:`BLOCK` fixed random ones:
                ``[n, ...]``.
            larger: Sizes above that to try, ascending.
        """
        threads = torch.get_num_threads()
        if threads not in self._proven:
            whole = compute(BLOCK)
            same = [
                size
                for size in (*SMALLER, *larger)
                if torch.equal(compute(size), repeated(whole, size))
            ]
            self._proven[threads] = tuple(sorted({*same, BLOCK}))
        return self._proven[threads]


def blocks_of(count: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the blocks that ``count`` rows are computed in; the last may have rows to spare.

    Args:
        count: Rows.
        sizes: What :meth:`BlockSizes.proven` gave.

    Example:
        >>> blocks_of(170, (2, 4, 16, 32, 64))
        (64, 64, 32, 16)
    """
    blocks: list[int] = []
    for size in reversed([size for size in sizes if size >= BLOCK]):
        blocks += [size] * (count // size)
        count %= size
    if count:
        blocks.append(next(size for size in sizes if size >= count))
    return tuple(blocks)


def rows_in_blocks(count: int, sizes: tuple[int, ...]) -> int:
    """Rows of the blocks that ``count`` rows are computed in."""
    return sum(blocks_of(count, sizes))


def repeated(rows: Tensor, count: int) -> Tensor:
    """``count`` rows: the first of these, or all of them over and over."""
    return rows[torch.arange(count) % len(rows)]


def padded(x_ND: Tensor, rows: int) -> Tensor:
    """``x_ND`` with zero rows at the end, up to ``rows``."""
    missing = rows - len(x_ND)
    return F.pad(x_ND, (0, 0, 0, missing)) if missing else x_ND


def in_blocks(
    function: Callable[[Tensor], Tensor], x_ND: Tensor, blocks: tuple[int, ...]
) -> Tensor:
    """``function`` of rows, one block at a time; of all at once where there are no blocks."""
    if len(blocks) <= 1:
        return function(x_ND)
    return torch.cat([function(block) for block in x_ND.split(blocks)])
