"""How much of a machine a training uses.

* :func:`flops_per_token` -- what the network's matrix products cost.
* :func:`measured_peak` -- what the machine does in one large matrix product.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch

from policies.model.config import NetworkConfig

SIZES = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""


def flops_per_token(config: NetworkConfig, length: int) -> float:
    """Floating-point operations of the forward and backward pass for a token.

    ``6 N + 12 L H K T`` (arXiv 2204.02311, appendix B), of the backbone's matrices alone: neither
    the embedding and the logits, which only some tokens need, nor what recomputation repeats.

    Args:
        config: Sizes of the network.
        length: T, of a packed sequence.
    """
    inner = config.heads * config.head_size
    weights = config.layers * config.width * (4 * inner + 3 * config.feed_forward)
    return float(6 * weights + 12 * config.layers * inner * length)


def measured_peak(device: torch.device) -> float:
    """Operations a second of a matrix product, float32 or bfloat16, whichever is faster.

    The threads are those that the process has; what runs beside it is in the number too.
    """
    return _measured(device, torch.get_num_threads())


@functools.cache
def _measured(device: torch.device, threads: int) -> float:
    size = SIZES.get(device.type, SIZES["cuda"])
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        multiply = product(device, dtype, size)
        multiply()
        begun = time.perf_counter()
        multiply()
        once = time.perf_counter() - begun
        times = [once] if once > 0.1 else [once, *(_seconds(multiply) for _ in range(4))]
        found.append(2 * size**3 / min(times))
    return max(found)


def product(device: torch.device, dtype: torch.dtype, size: int) -> Callable[[], object]:
    """A call that multiplies two square matrices and returns when the device has."""
    matrix = torch.full((size, size), 0.5, dtype=dtype, device=device)  # draws no random numbers

    def multiply() -> None:
        torch.mm(matrix, matrix)
        finish(device)

    return multiply


def finish(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
