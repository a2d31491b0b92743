"""Linear maps with weights of fewer bits.

* :class:`QuantizedLinear` -- one, of bfloat16 or of eight bits.
* :func:`must_convert`, :func:`quantize` -- whether, and the conversion of a module.
* :func:`whole_product` -- the product of two matrices of eight bits.
* :func:`has_kernels` -- whether :mod:`policies.model.cpu_kernels` can be used.

Shapes: N tokens, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 127
"""Largest number of eight bits; -128 is left out, so that a range is as wide on both sides."""


@functools.cache
def has_kernels() -> bool:
    """Whether Numba is installed, which compiles :mod:`policies.model.cpu_kernels`."""
    return importlib.util.find_spec("numba") is not None


class QuantizedLinear(nn.Module):
    """A linear map ``y = x W^T``, with or without a bias.

    Args:
        linear: The map to replace.
        dtype: The weights' dtype: bfloat16, or int8 with a scale for each output.

    Attributes:
        weight: ``[O, I]``.
        scale: float32 ``[O]``, ones for bfloat16.
        bias: float32 ``[O]``, or None.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.new_ones(len(weight))
        if dtype == torch.int8:
            scale = weight.abs().amax(1).clamp(min=1e-12) / LARGEST
            weight = (weight / scale[:, None]).round()
        self.register_buffer("weight", weight.to(dtype))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """``bfloat16 [..., I]`` to ``bfloat16 [..., O]``."""
        y = F.linear(x, self.weight.to(x.dtype))
        if self.weight.dtype != x.dtype:
            y = y * self.scale
        return (y if self.bias is None else y + self.bias).to(x.dtype)


def must_convert(has: str, precision: str) -> bool:
    """Whether a network that has a precision is to be converted to another.

    Raises:
        ValueError: It has few bits already.
    """
    if has not in (precision, "float32"):
        raise ValueError(f"the network is in {has}: load it again to have it in {precision}")
    return has != precision


def quantize(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert a module in place: its linear maps' weights to a dtype, the rest to bfloat16.

    Args:
        module: In float32.
        dtype: As in :class:`QuantizedLinear`.
    """
    maps = {
        name: QuantizedLinear(part, dtype)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    }
    module.to(torch.bfloat16)
    for name, part in maps.items():
        module.set_submodule(name, part)


def whole_product(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    """``x W^T`` of matrices of eight bits on a CPU, whose values are at least -127.

    PyTorch has the product under a private name, which its own quantised maps use. Where it has
    not, or where it is not exact, the product is float32's: exact up to 2^24, and slow.

    Args:
        x_NI: int8.
        weight_OI: int8.

    Returns:
        int32 ``[N, O]``.
    """
    if _has_whole_product():
        product: Tensor = torch._int_mm(x_NI, weight_OI.t())
        return product
    return F.linear(x_NI.float(), weight_OI.float()).to(torch.int32)


@functools.cache
def _has_whole_product() -> bool:
    """Whether PyTorch's product is there and exact on this machine.

    Processors without instructions for eight bits add pairs of products in 16 bits, which may not
    be enough; so the largest products are tried once.
    """
    if not hasattr(torch, "_int_mm"):
        return False
    x = torch.full((32, 64), LARGEST, dtype=torch.int8)
    x[1::2] = -LARGEST
    try:
        return torch.equal(torch._int_mm(x, x.t()).float(), x.float() @ x.float().T)
    except RuntimeError:
        return False
