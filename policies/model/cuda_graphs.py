"""Work that comes again: compiled, and on a GPU recorded as a CUDA graph.

A step of one row is hundreds of small kernels, which a GPU ends sooner than Python can ask for
them. A recording asks for all of them at once. It does the same work on the same memory each time,
so each belongs to one cache and to one pattern of rows; what differs from step to step is
copied into tensors that it reads.

* :class:`CudaGraphCache` -- the recordings of a cache.
* :func:`record` -- makes one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CudaGraphCache", "Work", "record"]

Work = Callable[[Tensor, Tensor], Tensor]
"""A function of two tensors whose kernels depend on their shapes alone."""

WARM_UPS = 3
"""Times that work is done before it is recorded: libraries allocate in the first."""


class CudaGraphCache:
    """Work that comes often, by key: compiled, and on a GPU recorded.

    A copy has none, and neither has what a pickle brings: they would work on the first's memory.

    Args:
        most: Keys that are held; work of others is done as it comes.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self._met: set[Hashable] = set()
        self._held: dict[Hashable, Work] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaGraphCache, (self.most,)

    def play(
        self, key: Hashable, plain: Work, compiled: Work, first: Tensor, second: Tensor
    ) -> Tensor:
        """Do work on two tensors of one device.

        Args:
            key: Equal where the same is done with tensors of the same shapes.
            plain: The work. It may write into memory besides, the same for the same arguments
                however often.
            compiled: The same, quicker once it has been done, and done when a key comes for the
                second time.
            first: A tensor.
            second: Another.
        """
        if key not in self._held:
            if key not in self._met or len(self._held) >= self.most:
                if len(self._met) >= 8 * self.most:
                    self._met.clear()
                self._met.add(key)
                return plain(first, second)
            self._held[key] = record(compiled, first, second) if recordable(first) else compiled
        return self._held[key](first, second)


def recordable(tensor: Tensor) -> bool:
    """Whether work on the tensor's device can be recorded."""
    return tensor.device.type == "cuda"


def record(work: Work, first: Tensor, second: Tensor) -> Work:
    """A function that does what ``work`` does, for arguments of these shapes."""
    with torch.cuda.device(first.device):
        held_first, held_second = first.clone(), second.clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                work(held_first, held_second)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=_pool(first.device)):
            output = work(held_first, held_second)

    def play(first: Tensor, second: Tensor) -> Tensor:
        held_first.copy_(first)
        held_second.copy_(second)
        graph.replay()
        return output.clone()

    return play


@functools.cache
def _pool(device: torch.device) -> Any:
    """The memory that all recordings of a device compute in, one after another."""
    return torch.cuda.graph_pool_handle()
