"""Linear maps with weights of fewer bits.

* :class:`QuantizedLinear` -- one, of bfloat16 or of eight bits.
* :func:`has_kernels` -- whether :mod:`policies.model.cpu_kernels` can be used.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@functools.cache
def has_kernels() -> bool:
    """Whether Numba is installed, which compiles :mod:`policies.model.cpu_kernels`."""
    return importlib.util.find_spec("numba") is not None


class QuantizedLinear(nn.Module):
    """A linear map ``y = x W^T`` without a bias.

    Args:
        linear: The map to replace.
        dtype: The weights' dtype: bfloat16, or int8 with a scale for each output.

    Attributes:
        weight: ``[M, K]``.
        scale: float32 ``[M]``, ones for bfloat16.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        assert linear.bias is None, "the backbone's maps have none"
        weight = linear.weight.detach().float()
        scale = weight.new_ones(len(weight))
        if dtype == torch.int8:
            scale = weight.abs().amax(1).clamp(min=1e-12) / 127
            weight = (weight / scale[:, None]).round()
        self.register_buffer("weight", weight.to(dtype))
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """``bfloat16 [..., K]`` to ``bfloat16 [..., M]``."""
        y = F.linear(x, self.weight.to(x.dtype))
        return y if self.weight.dtype == x.dtype else (y * self.scale).to(x.dtype)
