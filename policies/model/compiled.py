"""What the blocks that Numba compiles for a CPU have in common.

* :data:`serial`, :data:`compiled`, :data:`inlined` -- ways to compile a function: for one thread,
  for all, and into its callers.
* :func:`wide`, :func:`half`, :func:`narrow`, :func:`larger`, :func:`power_of_two`, :func:`fetch` --
  instructions; :func:`prefetch` is for other instructions.
* :func:`fetch_rows`, :func:`exp` -- functions of them.
* :func:`use_threads`, :func:`memory_of` -- what a call needs.

Tensors of bfloat16 are viewed as int16 here, the upper half of a float32.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

# infinities are the bias of what is hidden, so that "fast" may not mean that there are none
_FAST = {"reassoc", "contract", "arcp", "nsz"}
serial = numba.njit(fastmath=_FAST, cache=True)
compiled = numba.njit(fastmath=_FAST, parallel=True, cache=True)
inlined = numba.njit(fastmath=_FAST, inline="always")


@intrinsic  # type: ignore[untyped-decorator]
def wide(context: Any, number: Any) -> Any:
    """The float32 of a bfloat16 seen as int16, of an int8 or int32, or of itself."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        if number in (types.int8, types.int32):
            return builder.sitofp(arguments[0], ir.FloatType())
        bits = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(number), generate


@intrinsic  # type: ignore[untyped-decorator]
def half(context: Any, number: Any) -> Any:
    """The nearest bfloat16 of a float32, viewed as int16; ties go to even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _half_of(builder, arguments[0])

    return types.int16(types.float32), generate


def _half_of(builder: Any, number: Any) -> Any:
    """Instructions of :func:`half`."""
    word = ir.IntType(32)
    bits = builder.bitcast(number, word)
    even = builder.and_(builder.lshr(bits, word(16)), word(1))
    near = builder.add(builder.add(bits, word(0x7FFF)), even)
    return builder.trunc(builder.lshr(near, word(16)), ir.IntType(16))


@intrinsic  # type: ignore[untyped-decorator]
def narrow(context: Any, number: Any, like: Any) -> Any:
    """The nearest number of the type of ``like``: a bfloat16 seen as int16, or an int8.

    Ties go to even. An int8 is of -128 to 127: the sum with 1.5 times 2^23 has it in its last bits.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if like == types.int8:
            rounded = builder.fadd(arguments[0], ir.FloatType()(1.5 * 2**23))
            return builder.trunc(builder.bitcast(rounded, ir.IntType(32)), ir.IntType(8))
        return _half_of(builder, arguments[0])

    return like(types.float32, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def larger(context: Any, one: Any, other: Any) -> Any:
    """The larger of two float32 that are numbers; Python's ``max`` minds NaN, which is slow."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one, other = arguments
        flags = ("nnan", "nsz")
        above = builder.fcmp_ordered(">", one, other, flags=flags)
        return builder.select(above, one, other, flags=flags)

    return types.float32(types.float32, types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def power_of_two(context: Any, exponent: Any) -> Any:
    """2 to an int32 of -126 to 127, as float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.shl(builder.add(arguments[0], word(127)), word(23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic  # type: ignore[untyped-decorator]
def fetch(context: Any, address: Any) -> Any:
    """Prefetch the 64 bytes at an address into the second cache."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.intp), generate


def prefetch(builder: Any, address: Any) -> None:
    """The instruction of :func:`fetch`."""
    word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
    of = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, of, "llvm.prefetch.p0")
    read, second, data = word(0), word(2), word(1)
    builder.call(function, [builder.inttoptr(address, pointer), read, second, data])


@inlined  # type: ignore[untyped-decorator]
def fetch_rows(array: Any, first: Any, count: Any) -> None:
    """Prefetch rows of a matrix; processors do so only within a page of 4 KiB."""
    width = array.shape[1] * array.itemsize
    start = array.ctypes.data + first * width
    for byte in range(0, count * width, 64):
        fetch(start + byte)


@inlined  # type: ignore[untyped-decorator]
def exp(x: Any) -> Any:
    """The exponential of a float32 of at most 0, vectorisable.

    As Cephes' expf: 2^n e^r with abs(r) at most ln(2) / 2, by a polynomial of degree 6.
    """
    x = larger(x, np.float32(-87.0))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    return (p * r * r + r + np.float32(1)) * power_of_two(np.int32(n))


def use_threads(count: int) -> None:
    """Use as many threads as PyTorch; Numba's first threads change PyTorch's number."""
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def memory_of(tensor: Tensor) -> Any:
    """The memory of a tensor, bfloat16 as int16."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
