"""Repeated steps: on a GPU recorded as a CUDA graph, and compiled where that is asked for.

A step of one row is hundreds of small kernels, which a GPU finishes faster than Python can launch
them. A recording launches all of them at once, on the same memory each time. It therefore belongs
to one cache and one pattern of rows; values that change from step to step are copied into its
tensors.

* :class:`CudaGraphCache` -- the recordings of a cache.
* :func:`record` -- makes one.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CudaGraphCache", "Work", "record"]

Work = Callable[[Tensor, Tensor], Tensor]
"""A function of two tensors whose kernels depend on their shapes alone."""

WARM_UPS = 3
"""Runs before a recording: libraries allocate in the first ones."""


class CudaGraphCache:
    """Repeated work by key: on a GPU recorded.

    Copies and pickles are empty, because recordings use the memory of the original.

    Args:
        most: Largest number of recorded keys; other work runs as it comes.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self._met: set[Hashable] = set()
        self._held: dict[Hashable, Work] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaGraphCache, (self.most,)

    def play(
        self, key: Hashable, plain: Work, again: Work, first: Tensor, second: Tensor
    ) -> Tensor:
        """Do work on two tensors of one device.

        Args:
            key: Equal for the same work with tensors of the same shapes.
            plain: The work. It may write into other memory, always the same for the same arguments.
            again: The same work from a key's second call on, which may be slow at first and then
                faster.
            first: A tensor.
            second: Another tensor.
        """
        if key not in self._held:
            if key not in self._met or len(self._held) >= self.most:
                if len(self._met) >= 8 * self.most:
                    self._met.clear()
                self._met.add(key)
                return plain(first, second)
            self._held[key] = record(again, first, second) if recordable(first) else again
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
        others = _recorded(first.device)
        pool = next((other.pool() for other in others), None)
        # other threads may use the device meanwhile, as one that moves batches of training does
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            output = work(held_first, held_second)
        others.add(graph)

    def play(first: Tensor, second: Tensor) -> Tensor:
        held_first.copy_(first)
        held_second.copy_(second)
        graph.replay()
        return output.clone()

    return play


@functools.cache
def _recorded(device: torch.device) -> weakref.WeakSet[torch.cuda.CUDAGraph]:
    """A device's living recordings, which compute in the same memory, one after another.

    That memory is freed with the last of them, so the next one has to ask for its own.
    """
    return weakref.WeakSet()
