"""A block of the transformer on a CPU, in few bits, compiled by Numba.

A step of one row should take as long as reading all weights and its memory once. PyTorch's own
bfloat16 products reach half of that speed on a processor without units for them, and its small
operations take as long again. Here a block is one call, which widens numbers to 32 bits in
registers as it reads them.

* :func:`step` -- what :meth:`policies.model.block.Block.step` computes.

Tensors of bfloat16 are viewed as int16 here, the upper half of a float32. The first use compiles
for about twenty seconds; Numba keeps the result on disk.

Shapes: N tokens, D width, H heads, K head size, S cache slots, I inputs, O outputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numba
import numpy as np
import torch
from torch import Tensor

from policies.model.compiled import (
    compiled,
    exp,
    fetch_rows,
    half,
    inlined,
    larger,
    memory_of,
    serial,
    use_threads,
    wide,
)

if TYPE_CHECKING:
    from policies.model.block import Block
    from policies.model.kv_cache import CacheUpdate

_NO_NUMBERS, _NO_PLACES = np.empty((0, 0), np.float32), np.empty(0, np.int64)

TOGETHER = 32
"""Tokens that share one read of the weights; their numbers stay in the processor's cache."""

EPSILON = np.finfo(np.float32).eps
"""What ``torch.nn.RMSNorm`` adds to the mean square of float32 numbers."""


@serial  # type: ignore[untyped-decorator]
def _normalised(x_ND: Any, weight_D: Any, bias_D: Any, epsilon: Any) -> Any:
    """Layer norm of each token."""
    out = np.empty_like(x_ND)
    size = np.float32(x_ND.shape[1])
    for n in range(len(x_ND)):
        mean = np.float32(0)
        for i in range(x_ND.shape[1]):
            mean += x_ND[n, i]
        mean /= size
        square = np.float32(0)
        for i in range(x_ND.shape[1]):
            square += (x_ND[n, i] - mean) * (x_ND[n, i] - mean)
        factor = np.float32(1) / np.sqrt(square / size + np.float32(epsilon))
        for i in range(x_ND.shape[1]):
            out[n, i] = (x_ND[n, i] - mean) * factor * wide(weight_D[i]) + wide(bias_D[i])
    return out


@inlined  # type: ignore[untyped-decorator]
def _four_products(x: Any, y: Any, z: Any, w: Any, other: Any) -> Any:
    """Products of four vectors with another one; at most one side is narrow."""
    a = b = c = d = np.float32(0)
    for i in range(len(other)):
        factor = wide(other[i])
        a += factor * wide(x[i])
        b += factor * wide(y[i])
        c += factor * wide(z[i])
        d += factor * wide(w[i])
    return a, b, c, d


@compiled  # type: ignore[untyped-decorator]
def _mapped(x_NI: Any, weight_OI: Any, scale_O: Any, out_NO: Any) -> None:
    """Add ``x W^T``, times a scale for each output, to ``out_NO``; O is a multiple of 4."""
    for first in range(0, len(x_NI), TOGETHER):
        stop = min(first + TOGETHER, len(x_NI))
        fours = first + (stop - first) // 4 * 4
        for four in numba.prange(len(weight_OI) // 4):
            o = 4 * four
            fetch_rows(weight_OI, o + 4, 4)
            for n in range(fours, stop):
                products = _four_products(
                    weight_OI[o], weight_OI[o + 1], weight_OI[o + 2], weight_OI[o + 3], x_NI[n]
                )
                for j in range(4):
                    out_NO[n, o + j] += products[j] * scale_O[o + j]
            for n in range(first, fours, 4):
                for j in range(o, o + 4):
                    products = _four_products(
                        x_NI[n], x_NI[n + 1], x_NI[n + 2], x_NI[n + 3], weight_OI[j]
                    )
                    for i in range(4):
                        out_NO[n + i, j] += products[i] * scale_O[j]


@inlined  # type: ignore[untyped-decorator]
def _turned(x_K: Any, weight_K: Any, cos: Any, sin: Any, out_K: Any) -> None:
    """RMS norm of a head, then the rotation of its two halves as pairs; see ``rotate``."""
    middle = len(x_K) // 2
    square = np.float32(0)
    for i in range(len(x_K)):
        square += x_K[i] * x_K[i]
    factor = np.float32(1) / np.sqrt(square / np.float32(len(x_K)) + np.float32(EPSILON))
    for i in range(middle):
        a = x_K[i] * factor * wide(weight_K[i])
        b = x_K[middle + i] * factor * wide(weight_K[middle + i])
        out_K[i] = a * cos[i] - b * sin[i]
        out_K[middle + i] = a * sin[i] + b * cos[i]


@inlined  # type: ignore[untyped-decorator]
def _attended(query_K: Any, bias_S: Any, keys_KS: Any, values_KS: Any, out_K: Any) -> None:
    """Softmax attention of one query."""
    length = len(bias_S)
    shares = bias_S.copy()
    for k in range(0, len(query_K), 4):
        fetch_rows(keys_KS, k + 4, 4)
        a, b, c, d = query_K[k], query_K[k + 1], query_K[k + 2], query_K[k + 3]
        for s in range(length):
            first = a * wide(keys_KS[k, s]) + b * wide(keys_KS[k + 1, s])
            shares[s] += first + c * wide(keys_KS[k + 2, s]) + d * wide(keys_KS[k + 3, s])
    top = np.float32(-np.inf)
    for s in range(length):
        top = larger(top, shares[s])
    total = np.float32(0)
    for s in range(length):
        share = exp(shares[s] - top)
        share = share if bias_S[s] == 0 else np.float32(0)
        shares[s] = share
        total += share
    for k in range(0, len(out_K), 4):
        fetch_rows(values_KS, k + 4, 4)
        a, b, c, d = _four_products(
            values_KS[k], values_KS[k + 1], values_KS[k + 2], values_KS[k + 3], shares
        )
        out_K[k], out_K[k + 1] = a / total, b / total
        out_K[k + 2], out_K[k + 3] = c / total, d / total


@compiled  # type: ignore[untyped-decorator]
def _remembered(
    qkv: Any,
    norms: Any,
    cos: Any,
    sin: Any,
    rows: Any,
    slots: Any,
    bias: Any,
    keys: Any,
    values: Any,
) -> Any:
    """Put new tokens into the cache and attend to it: float32 ``[N, H * K]``."""
    count, _, heads, size = qkv.shape
    factor = np.float32(1) / np.sqrt(np.float32(size))
    out = np.empty((count, heads * size), np.float32)
    for h in numba.prange(heads):
        key = np.empty(size, np.float32)
        for n in range(count):
            _turned(qkv[n, 1, h], norms[1], cos[n], sin[n], key)
            for k in range(size):
                keys[rows[n], h, k, slots[n]] = half(key[k])
                values[rows[n], h, k, slots[n]] = half(qkv[n, 2, h, k])
    for job in numba.prange(count * heads):
        n, h = job // heads, job % heads
        query = np.empty(size, np.float32)
        _turned(qkv[n, 0, h], norms[0], cos[n], sin[n], query)
        for k in range(size):
            query[k] *= factor
        mixed = out[n, h * size : (h + 1) * size]
        _attended(query, bias[n], keys[rows[n], h], values[rows[n], h], mixed)
    return out


@compiled  # type: ignore[untyped-decorator]
def _gated(both_NI: Any) -> Any:
    """The second half of each token's numbers times the GELU of the first."""
    count, middle = len(both_NI), both_NI.shape[1] // 2
    out = np.empty((count, middle), np.float32)
    root = np.float32(math.sqrt(0.5))
    for i in numba.prange(middle):
        for n in range(count):
            gate = both_NI[n, i]
            share = np.float32(0.5) * (np.float32(1) + np.float32(math.erf(gate * root)))
            out[n, i] = gate * share * both_NI[n, middle + i]
    return out


@serial  # type: ignore[untyped-decorator]
def _step(
    x: Any, norms: Any, heads: Any, maps: Any, turns: Any, places: Any, bias: Any, memory: Any
) -> None:
    """A block's step: ``x`` is float32 ``[N, D]`` and is updated in place."""
    count = len(x)
    (weight, shift, epsilon), (feed_weight, feed_shift, feed_epsilon) = norms
    cos, sin = turns
    rows, slots = places
    keys, values = memory
    qkv_map, out_map, feed_in, feed_out = maps
    normalised = _normalised(x, weight, shift, epsilon)
    if keys.shape[3]:
        qkv = np.zeros((count, len(qkv_map[0])), np.float32)
        _mapped(normalised, qkv_map[0], qkv_map[1], qkv)
        parts = qkv.reshape(count, 3, keys.shape[1], keys.shape[2])
        y = _remembered(parts, heads, cos, sin, rows, slots, bias, keys, values)
    else:  # every token sees itself alone
        first = len(qkv_map[0]) // 3 * 2
        y = np.zeros((count, len(qkv_map[0]) - first), np.float32)
        _mapped(normalised, qkv_map[0][first:], qkv_map[1][first:], y)
    _mapped(y, out_map[0], out_map[1], x)
    both = np.zeros((count, len(feed_in[0])), np.float32)
    _mapped(_normalised(x, feed_weight, feed_shift, feed_epsilon), feed_in[0], feed_in[1], both)
    _mapped(_gated(both), feed_out[0], feed_out[1], x)


_VIEWS: WeakKeyDictionary[Block, tuple[int, tuple[Any, ...]]] = WeakKeyDictionary()


def _views(block: Block) -> tuple[Any, ...]:
    """A block's weights as arrays of the same memory."""
    address = block.qkv.weight.data_ptr()
    known, views = _VIEWS.get(block, (0, ()))
    if known != address:
        norms = (block.norm_attention, block.norm_feed)
        maps = (block.qkv, block.attention_out, block.feed_in, block.feed_out)
        views = (
            tuple((memory_of(norm.weight), memory_of(norm.bias), norm.eps) for norm in norms),
            (memory_of(block.norm_query.weight), memory_of(block.norm_key.weight)),
            tuple((memory_of(m.weight), memory_of(m.get_buffer("scale"))) for m in maps),
        )
        _VIEWS[block] = address, views
    return views


def step(block: Block, x_ND: Tensor, update: CacheUpdate, keys: Tensor, values: Tensor) -> None:
    """A block's step, in place.

    Args:
        block: Its maps are :class:`policies.model.quantized_linear.QuantizedLinear`, its norms
            bfloat16.
        x_ND: float32 ``[N, D]``, new tokens; updated in place.
        update: Where they go, and what they see.
        keys: bfloat16 ``[B, H, K, S]``, keys of one layer; written.
        values: Values in the same shape; written.
    """
    use_threads(torch.get_num_threads())
    _step(x_ND.numpy(), *_views(block), *_places(update), (memory_of(keys), memory_of(values)))


def _places(update: CacheUpdate) -> tuple[Any, ...]:
    """Angles, rows and slots, and bias of new tokens; empty ones where each is seen alone."""
    if update.alone:
        return (_NO_NUMBERS, _NO_NUMBERS), (_NO_PLACES, _NO_PLACES), _NO_NUMBERS
    turns = tuple(table[:, 0].numpy() for table in update.rotary)
    return turns, (update.rows.numpy(), update.slots.numpy()), update.bias.numpy()
