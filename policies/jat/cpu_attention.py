"""Attention to a cache of bfloat16 on a CPU, compiled by Numba, which reads it once.

* :func:`attend` -- puts new tokens into one layer's cache, and attends to it.

Both of attention's products multiply the numbers of :data:`TOGETHER` queries with a matrix of
bfloat16: scores with keys, whose slots are next to each other, and shares with values, whose
numbers are. A block of the result stays in registers while the matrix's rows are read, and the
next matrix is fetched from memory meanwhile. Tensors of bfloat16 are viewed as int16 here.

Shapes: B rows, T tokens, N tokens of all rows, D width, H heads, K head size, S cache slots.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from policies.model.compiled import compiled, exp, half, inlined, larger, prefetch, serial, wide

TOGETHER = 3
"""Queries of a row that share one read of its cache: those of a step with published positions."""

_ADDRESS, _FLOAT = ir.IntType(64), ir.FloatType()


def _block(lanes: int, vectors: int) -> Any:
    """A product of three rows of float32 with ``lanes * vectors`` columns of bfloat16.

    Its arguments are addresses and distances in bytes: the matrix, between its rows, how many there
    are; the factors, between the three; the result, between the three; what is fetched meanwhile,
    128 bytes for each of the matrix's rows.
    """
    numbers, words = ir.VectorType(_FLOAT, lanes), ir.VectorType(ir.IntType(32), lanes)
    halves = ir.VectorType(ir.IntType(16), lanes)
    first, sixteen = ir.Constant(words, [0] * lanes), ir.Constant(words, [16] * lanes)
    contracted = ("contract",)

    def at(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
        return builder.inttoptr(builder.add(address, offset), kind.as_pointer())

    def times(builder: Any, number: Any, distance: Any) -> Any:
        return builder.mul(
            number, distance if isinstance(distance, ir.Value) else _ADDRESS(distance)
        )

    def read(builder: Any, address: Any) -> list[Any]:
        """One row of the matrix, widened."""
        parts = []
        for vector in range(vectors):
            place = at(builder, address, _ADDRESS(2 * lanes * vector), halves)
            bits = builder.zext(builder.load(place, align=2), words)
            parts.append(builder.bitcast(builder.shl(bits, sixteen), numbers))
        return parts

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix, distance, count, factors, apart, out, out_apart, ahead = arguments
        nothing = ir.Constant(numbers, [0.0] * lanes)
        sums = [
            [cgutils.alloca_once_value(builder, nothing) for _ in range(vectors)]
            for _ in range(TOGETHER)
        ]
        with cgutils.for_range(builder, count) as loop:
            for line in (0, 64):
                byte = builder.add(times(builder, loop.index, 128), _ADDRESS(line))
                prefetch(builder, builder.add(ahead, byte))
            row = read(builder, builder.add(matrix, times(builder, loop.index, distance)))
            for query in range(TOGETHER):
                place = builder.add(factors, times(builder, apart, query))
                offset = times(builder, loop.index, 4)
                factor = builder.load(at(builder, place, offset, _FLOAT))
                single = builder.insert_element(nothing, factor, ir.IntType(32)(0))
                everywhere = builder.shuffle_vector(single, nothing, first)
                for total, part in zip(sums[query], row, strict=True):
                    product = builder.fmul(everywhere, part, flags=contracted)
                    builder.store(
                        builder.fadd(builder.load(total), product, flags=contracted), total
                    )
        for query in range(TOGETHER):
            place = builder.add(out, times(builder, out_apart, query))
            for vector, total in enumerate(sums[query]):
                target = at(builder, place, _ADDRESS(4 * lanes * vector), numbers)
                builder.store(builder.load(total), target, align=4)
        return context.get_dummy_value()

    def block(
        context: Any, matrix: Any, distance: Any, count: Any, factors: Any, apart: Any, out: Any,
        out_apart: Any, ahead: Any,
    ) -> Any:  # fmt: skip
        return types.void(*[types.intp] * 8), generate

    return intrinsic(block)


_block_of_64, _block_of_8, _block_of_4 = _block(16, 4), _block(8, 1), _block(4, 1)


@inlined  # type: ignore[untyped-decorator]
def _product(factors: Any, matrix: Any, out: Any, ahead: Any) -> None:
    """``factors`` float32 ``[3, n]`` times ``matrix`` bfloat16 ``[n, m]``, m a multiple of 4.

    Args:
        factors, matrix: What is multiplied.
        out: float32 ``[3, m]``, written.
        ahead: What is fetched, as large as ``matrix``.
    """
    count, width = matrix.shape
    start, source, target = matrix.ctypes.data, factors.ctypes.data, out.ctypes.data
    row, apart, out_apart, fetched = 2 * width, 4 * count, 4 * width, ahead.ctypes.data
    large, small = width // 64 * 64, width // 8 * 8
    for i in range(0, large, 64):
        columns, results = start + 2 * i, target + 4 * i
        _block_of_64(columns, row, count, source, apart, results, out_apart, fetched)
        fetched += 128 * count
    for i in range(large, small, 8):
        columns, results = start + 2 * i, target + 4 * i
        _block_of_8(columns, row, count, source, apart, results, out_apart, fetched)
    for i in range(small, width, 4):
        columns, results = start + 2 * i, target + 4 * i
        _block_of_4(columns, row, count, source, apart, results, out_apart, fetched)


@inlined  # type: ignore[untyped-decorator]
def _softmax(scores_S: Any, bias_S: Any) -> None:
    """Shares in the place of scores."""
    top = np.float32(-np.inf)
    for s in range(len(scores_S)):
        scores_S[s] += bias_S[s]
        top = larger(top, scores_S[s])
    total = np.float32(0)
    for s in range(len(scores_S)):
        share = exp(scores_S[s] - top)
        share = share if bias_S[s] == 0 else np.float32(0)
        scores_S[s] = share
        total += share
    factor = np.float32(1) / total
    for s in range(len(scores_S)):
        scores_S[s] *= factor


@inlined  # type: ignore[untyped-decorator]
def read(product: Any, n: Any, o: Any) -> Any:
    """The float32 of one output of one token of a :class:`policies.jat.cpu_kernels.Product`."""
    numbers, token_scale, shift, scale, sums, bias = product
    offset = shift[n] * sums[o] + wide(bias[o])
    return wide(numbers[n, o]) * (token_scale[n] * scale[o]) + offset


@inlined  # type: ignore[untyped-decorator]
def _head(product: Any, n: Any, first: Any, out_K: Any) -> None:
    """The float32 of one head of one token."""
    numbers, token_scale, shift, scale, sums, bias = product
    stop, factor, moved = first + len(out_K), token_scale[n], shift[n]
    numbers_K, scale_K = numbers[n, first:stop], scale[first:stop]
    sums_K, bias_K = sums[first:stop], bias[first:stop]
    for i in range(len(out_K)):
        offset = moved * sums_K[i] + wide(bias_K[i])
        out_K[i] = wide(numbers_K[i]) * (factor * scale_K[i]) + offset


@serial  # type: ignore[untyped-decorator]
def _remember(k: Any, v: Any, n: Any, first: Any, slot: Any, keys_KS: Any, values_SK: Any) -> None:
    """Put one head of a new token into the cache."""
    size = len(keys_KS)
    number = np.empty(size, np.float32)
    key, value = np.empty(size, np.int16), values_SK[slot]
    _head(k, n, first, number)
    for i in range(size):
        key[i] = half(number[i])
    for i in range(size):
        keys_KS[i, slot] = key[i]
    _head(v, n, first, number)
    for i in range(size):
        value[i] = half(number[i])


@compiled  # type: ignore[untyped-decorator]
def attend(
    q: Any, k: Any, v: Any, slots_BT: Any, bias_BTS: Any, keys: Any, values: Any, out_ND: Any
) -> None:
    """Put new tokens into one layer's cache, and attend to it.

    Args:
        q: Product of queries, of the last tokens of each row: of as many as the bias is.
        k, v: Products of keys and values, of all new tokens.
        slots_BT: int64, where each token goes.
        bias_BTS: float32, 0 for slots that a query sees, -inf for others; S a multiple of 4.
        keys: bfloat16 ``[B, H, K, S]``, K a multiple of 4; written.
        values: bfloat16 ``[B, H, S, K]``; written.
        out_ND: float32, what each query attends to; written.
    """
    rows, heads, size, slots = keys.shape
    tokens, asking = slots_BT.shape[1], bias_BTS.shape[1]
    for job in numba.prange(rows * heads):
        b, h = job // heads, job % heads
        first = h * size
        for t in range(tokens):
            _remember(k, v, b * tokens + t, first, slots_BT[b, t], keys[b, h], values[b, h])
        following = min(job + 1, rows * heads - 1)
        ahead = keys[following // heads, following % heads]
        queries = np.empty((TOGETHER, size), np.float32)
        shares = np.empty((TOGETHER, slots), np.float32)
        mixed = np.empty((TOGETHER, size), np.float32)
        for start in range(0, asking, TOGETHER):
            for j in range(TOGETHER):  # the last one again where there are fewer
                n = b * asking + min(start + j, asking - 1)
                _head(q, n, first, queries[j])
            _product(queries, keys[b, h], shares, values[b, h])
            for j in range(TOGETHER):
                _softmax(shares[j], bias_BTS[b, min(start + j, asking - 1)])
            _product(shares, values[b, h], mixed, ahead)
            for j in range(min(TOGETHER, asking - start)):
                for i in range(size):
                    out_ND[b * asking + start + j, first + i] = mixed[j, i]
