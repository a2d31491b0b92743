"""JAT's blocks on a CPU, in few bits: products by PyTorch, the rest compiled by Numba.

A step of many rows takes as long as its products and reading its cache once. PyTorch's attention
in bfloat16 takes several times as long as reading, and its small operations a tenth of the
products. Here :mod:`policies.jat.cpu_attention` reads the cache once, and what lies between two
products is one pass.

* :func:`step` -- what :meth:`policies.jat.backbone.Backbone.step` computes.

What enters a product is :class:`Narrow`: bfloat16, or int8 with a scale and a shift for each token,
from its least number to its largest. With int8 weights a product is one of whole numbers, which is
exact. Tensors of bfloat16 are viewed as int16 here. The first use compiles for about twenty
seconds; Numba keeps the result on disk.

Shapes: B rows, T tokens, N tokens of all rows, D width, H heads, K head size, S cache slots,
I inputs, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.jat.cpu_attention import attend, read
from policies.model.compiled import (
    compiled,
    exp,
    inlined,
    larger,
    memory_of,
    narrow,
    use_threads,
    wide,
)
from policies.model.quantized_linear import LARGEST, QuantizedLinear, whole_product

if TYPE_CHECKING:
    from policies.jat.block import Block
    from policies.jat.cache import TokenCache

_TINY = np.float32(1e-12)


class Narrow(NamedTuple):
    """What enters a product: ``numbers`` times ``scale``, plus ``shift``.

    Attributes:
        numbers: bfloat16 or int8 ``[N, I]``.
        scale: float32 ``[N]``, ones for bfloat16.
        shift: float32 ``[N]``, zeros for bfloat16.
    """

    numbers: Tensor
    scale: Any
    shift: Any


class Product(NamedTuple):
    """What comes out of one: ``numbers`` times both scales, ``shift`` times ``sums``, and ``bias``.

    Attributes:
        numbers: bfloat16, seen as int16, or int32 ``[N, O]``.
        token_scale, shift: float32 ``[N]``, of what entered.
        scale: float32 ``[O]``.
        sums: float32 ``[O]``, of the weights.
        bias: float32, or bfloat16 seen as int16, ``[O]``.
    """

    numbers: Any
    token_scale: Any
    shift: Any
    scale: Any
    sums: Any
    bias: Any


@inlined  # type: ignore[untyped-decorator]
def _write(x_I: Any, out_I: Any) -> Any:
    """Put a token's float32 numbers into fewer bits; gives their scale and shift."""
    scale, shift = np.float32(1), np.float32(0)
    if out_I.itemsize == 1:
        high, low = x_I[0], -x_I[0]
        for i in range(len(x_I)):
            high, low = larger(high, x_I[i]), larger(low, -x_I[i])
        shift = np.float32(0.5) * (high - low)
        scale = larger(np.float32(0.5) * (high + low), _TINY) / np.float32(LARGEST)
    factor = np.float32(1) / scale
    for i in range(len(x_I)):
        out_I[i] = narrow((x_I[i] - shift) * factor, out_I[i])
    return scale, shift


@compiled  # type: ignore[untyped-decorator]
def _narrowed(x_NI: Any, out_NI: Any, scale_N: Any, shift_N: Any) -> None:
    """Each token in fewer bits."""
    for n in numba.prange(len(x_NI)):
        scale_N[n], shift_N[n] = _write(x_NI[n], out_NI[n])


@compiled  # type: ignore[untyped-decorator]
def _normalised(
    x_ND: Any, weight_D: Any, bias_D: Any, epsilon: Any, out_ND: Any, scale_N: Any, shift_N: Any
) -> None:
    """Layer norm of each token, in fewer bits."""
    width = x_ND.shape[1]
    for n in numba.prange(len(x_ND)):
        x_D, y_D = x_ND[n], np.empty(width, np.float32)
        mean = np.float32(0)
        for i in range(width):
            mean += x_D[i]
        mean /= np.float32(width)
        square = np.float32(0)
        for i in range(width):
            square += (x_D[i] - mean) * (x_D[i] - mean)
        factor = np.float32(1) / np.sqrt(square / np.float32(width) + np.float32(epsilon))
        for i in range(width):
            y_D[i] = (x_D[i] - mean) * factor * wide(weight_D[i]) + wide(bias_D[i])
        scale_N[n], shift_N[n] = _write(y_D, out_ND[n])


@compiled  # type: ignore[untyped-decorator]
def _add(product: Any, x_ND: Any) -> None:
    """Add a product to the residual stream."""
    for n in numba.prange(len(x_ND)):
        for i in range(x_ND.shape[1]):
            x_ND[n, i] += read(product, n, i)


@compiled  # type: ignore[untyped-decorator]
def _activated(product: Any, out_NI: Any, scale_N: Any, shift_N: Any) -> None:
    """GELU's tanh form of each token, in fewer bits.

    It is x times the logistic function of twice the tangent's argument.
    """
    root = np.float32(2 * math.sqrt(2 / math.pi))
    width = out_NI.shape[1]
    for n in numba.prange(len(out_NI)):
        y_I = np.empty(width, np.float32)
        for i in range(width):
            x = read(product, n, i)
            u = root * (x + np.float32(0.044715) * x * x * x)
            e = exp(-abs(u))
            y_I[i] = x * (np.float32(1) if u >= 0 else e) / (np.float32(1) + e)
        scale_N[n], shift_N[n] = _write(y_I, out_NI[n])


class _Map(NamedTuple):
    """The weights of a linear map, as they enter products; attributes as in :class:`Product`."""

    weight: Tensor
    scale: Any
    sums: Any
    bias: Any

    @classmethod
    def of(cls, linear: nn.Module) -> _Map:
        """A :class:`QuantizedLinear`, or PyTorch's map in bfloat16."""
        assert isinstance(linear, (nn.Linear, QuantizedLinear))
        weight, bias = linear.weight, linear.bias
        scale = linear.scale if isinstance(linear, QuantizedLinear) else torch.ones(len(weight))
        shift = torch.zeros(len(weight)) if bias is None else bias
        sums = weight.sum(1, dtype=torch.float32) * scale
        return cls(weight, scale.numpy(), sums.numpy(), memory_of(shift))

    def __call__(self, x: Narrow) -> Product:
        product = whole_product if self.weight.dtype == torch.int8 else F.linear
        numbers = memory_of(product(x.numbers, self.weight))
        return Product(numbers, x.scale, x.shift, self.scale, self.sums, self.bias)


class _Parts(NamedTuple):
    """A block's weights; the norms have a weight, a bias and an epsilon."""

    norms: tuple[tuple[Any, Any, float], ...]
    q: _Map
    k: _Map
    v: _Map
    out: _Map
    feed_in: _Map
    feed_out: _Map

    def narrow(self, count: int, width: int) -> Narrow:
        """Room for ``[count, width]`` numbers that enter a product."""
        numbers = torch.empty(count, width, dtype=self.out.weight.dtype)
        return Narrow(numbers, np.empty(count, np.float32), np.empty(count, np.float32))

    def normalised(self, x_ND: Any, norm: int) -> Narrow:
        """A layer norm of float32 ``[N, D]``."""
        room = self.narrow(*x_ND.shape)
        _normalised(x_ND, *self.norms[norm], memory_of(room.numbers), *room[1:])
        return room


_PARTS: WeakKeyDictionary[Block, tuple[int, _Parts]] = WeakKeyDictionary()


def _parts(block: Block) -> _Parts:
    """A block's weights, in the memory that they have."""
    attention = block.attention
    address = attention.q_proj.weight.data_ptr()
    known = _PARTS.get(block)
    if known is None or known[0] != address:
        norms = tuple(
            (memory_of(norm.weight), memory_of(norm.bias), norm.eps)
            for norm in (block.ln_1, block.ln_2)
        )
        maps = (
            attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj,
            block.mlp.c_fc, block.mlp.c_proj,
        )  # fmt: skip
        known = _PARTS[block] = address, _Parts(norms, *(_Map.of(part) for part in maps))
    return known[1]


def step(
    blocks: Sequence[Block],
    x_BTD: Tensor,
    slots_BT: Tensor,
    biases: Sequence[Tensor],
    cache: TokenCache,
    wanted: int,
) -> Tensor:
    """New tokens through all blocks.

    Args:
        blocks: With bfloat16 norms, and maps of bfloat16 or int8.
        x_BTD: Embeddings with positions, of any dtype.
        slots_BT: int64, where each token goes in the cache.
        biases: float32 ``[B, T, S]`` of each block, 0 for slots that a token sees, -inf for others.
        cache: In bfloat16 with its slots last; keys and values are written.
        wanted: Tokens at the end of each row whose hidden vectors are asked for.

    Returns:
        float32 ``[B * wanted, D]``, before the last norm.
    """
    use_threads(torch.get_num_threads())
    rows, tokens = slots_BT.shape
    x = x_BTD.flatten(0, 1).to(torch.float32, copy=True).numpy()
    slots = slots_BT.numpy()
    for layer, (block, bias) in enumerate(zip(blocks, biases, strict=True)):
        parts = _parts(block)
        keys, values = cache.keys[layer].transpose(2, 3), cache.values[layer]
        assert keys.is_contiguous()
        assert values.is_contiguous()
        entering = parts.normalised(x, 0)
        k, v = parts.k(entering), parts.v(entering)
        if layer == len(blocks) - 1 and wanted < tokens:
            late = (np.arange(rows)[:, None] * tokens + np.arange(tokens - wanted, tokens)).ravel()
            x, bias = x[late], bias[:, tokens - wanted :].contiguous()
            numbers = entering.numbers[torch.from_numpy(late)]
            entering = Narrow(numbers, entering.scale[late], entering.shift[late])
        attended = np.empty_like(x)
        attend(
            parts.q(entering),
            k,
            v,
            slots,
            bias.numpy(),
            memory_of(keys),
            memory_of(values),
            attended,
        )
        if len(x):
            _finish(parts, x, attended)
    return torch.from_numpy(x)


def _finish(parts: _Parts, x_ND: Any, attended_ND: Any) -> None:
    """The residual stream after attention and the feed-forward, in place."""
    entering = parts.narrow(*x_ND.shape)
    _narrowed(attended_ND, memory_of(entering.numbers), *entering[1:])
    _add(parts.out(entering), x_ND)
    inner = parts.feed_in(parts.normalised(x_ND, 1))
    active = parts.narrow(*inner.numbers.shape)
    _activated(inner, memory_of(active.numbers), *active[1:])
    _add(parts.feed_out(active), x_ND)
