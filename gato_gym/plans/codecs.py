"""Numbers to bins and back, vectorised and exact at the edges.

* :func:`mu_law`, :func:`inverse_mu_law` -- compress real numbers into [-1, 1] and back.
* :func:`encode_uniform`, :func:`decode_uniform` -- [-1, 1] to one of n equal bins, and back.
* :class:`Digits` -- integers of any range as digits that fit a small alphabet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Digits", "decode_uniform", "encode_uniform", "inverse_mu_law", "mu_law"]


MU, M = 100.0, 256.0
"""How steep the curve of :func:`mu_law` is at 0, and the magnitude that it maps to 1."""


def mu_law(x: ArrayLike) -> NDArray[np.float64]:
    """Compress real numbers into [-1, 1]: ``sgn(x) log(|x| mu + 1) / log(m mu + 1)``, clipped.

    The formula of Gato's appendix B (arXiv 2205.06175), with mu = 100 and m = 256. A magnitude of
    256 and beyond, infinity too, is 1.

    Args:
        x: Numbers of any shape.

    Returns:
        float64, the shape of ``x``, in [-1, 1]; NaN stays NaN.

    Example:
        >>> mu_law([0.0, 256.0, -float("inf")]).tolist()
        [0.0, 1.0, -1.0]
    """
    values = np.asarray(x, dtype=np.float64)
    # clipped first, so that nothing overflows; then in place, since each array costs a pass
    compressed = np.atleast_1d(np.minimum(np.abs(values), M))
    compressed *= MU
    np.log1p(compressed, out=compressed)
    compressed /= np.log1p(M * MU)
    compressed *= np.sign(values)
    return compressed.reshape(values.shape)


def inverse_mu_law(y: ArrayLike) -> NDArray[np.float64]:
    """The number in [-256, 256] that :func:`mu_law` maps to ``y``.

    Args:
        y: Numbers in [-1, 1]; others are clipped to it.

    Returns:
        float64, the shape of ``y``.
    """
    values = np.clip(np.asarray(y, dtype=np.float64), -1.0, 1.0)
    magnitude = np.expm1(np.abs(values) * np.log1p(M * MU)) / MU
    signed: NDArray[np.float64] = np.copysign(magnitude, values)
    return signed


def encode_uniform(x: ArrayLike, bins: int = 1024) -> NDArray[np.int32]:
    """The bin of each number: ``bins`` equal ones over [-1, 1], the last closed on the right.

    Args:
        x: Numbers; below -1 falls into bin 0 and above 1 into the last.
        bins: How many bins.

    Returns:
        int32, the shape of ``x``, in [0, bins).

    Raises:
        ValueError: If a number is NaN.

    Example:
        >>> encode_uniform([-1.0, 0.0, 1.0, 7.0]).tolist()
        [0, 512, 1023, 1023]
    """
    values = np.asarray(x)
    if values.dtype != np.float32 or bins & (bins - 1):  # scaling by a power of two is exact
        values = values.astype(np.float64, copy=False)
    if values.size and np.isnan(np.minimum.reduce(values, axis=None)):
        where = tuple(int(i) for i in np.argwhere(np.isnan(values))[0])
        raise ValueError(f"number at index {where} is NaN: expected a number, which has a bin")
    # floor((x + 1) bins / 2), without the rounding of x + 1 that moves numbers just below an edge
    places = np.atleast_1d(np.minimum(np.maximum(values, -1.0), 1.0))
    places *= bins / 2
    if bins % 2:
        places += 0.5
    np.floor(places, out=places)
    places += bins // 2
    np.minimum(places, bins - 1, out=places)
    return places.astype(np.int32).reshape(values.shape)


def decode_uniform(bin_index: ArrayLike, bins: int = 1024) -> NDArray[np.float64]:
    """The centre of each bin, in [-1, 1].

    Args:
        bin_index: Integers in [0, bins).
        bins: How many bins.

    Returns:
        float64, the shape of ``bin_index``; at most ``1 / bins`` from what was encoded.

    Raises:
        ValueError: If an index is outside [0, bins).

    Example:
        >>> decode_uniform([0, 3], bins=4).tolist()
        [-0.75, 0.75]
    """
    index = np.asarray(bin_index)
    if index.size and (index.min() < 0 or index.max() >= bins):
        raise ValueError(
            f"bin indices span [{index.min()}, {index.max()}]: expected all in [0, {bins})"
        )
    return (2.0 * index.astype(np.float64) + 1.0) / bins - 1.0


class Digits:
    """Integers from 0 up as digits, most significant first, in as few as each one's range needs.

    A number below ``base`` is its own single digit, so most spaces take one token a number.

    Args:
        counts: How many values each number may take, all at least 1.
        base: How many values a digit may take.

    Attributes:
        ranges: int64 ``[K]``; digit k takes values in [0, ranges[k]).
        sources: int64 ``[K]``; the number digit k belongs to.

    Example:
        >>> digits = Digits([3, 2000], base=1024)
        >>> digits.encode([[2, 1999]]).tolist(), digits.ranges.tolist()
        ([[2, 1, 975]], [3, 2, 1024])
        >>> digits.decode([[2, 1, 975]]).tolist(), digits.decode([[2, 1, 1023]]).tolist()
        ([[2, 1999]], [[2, 1999]])
    """

    def __init__(self, counts: Sequence[int], base: int) -> None:
        self.base = base
        self._last = np.array([int(count) - 1 for count in counts], dtype=np.int64)
        sources, divisors, ranges = [], [], []
        for source, count in enumerate(int(count) for count in counts):
            places = 1
            while base**places < count:
                places += 1
            for place in reversed(range(places)):
                sources.append(source)
                divisors.append(base**place)
                top = place == places - 1
                ranges.append(-(-count // base**place) if top else base)
        self.sources = np.array(sources, dtype=np.int64)
        self.ranges = np.array(ranges, dtype=np.int64)
        self._divisors = np.array(divisors, dtype=np.int64)
        self._starts = np.flatnonzero(np.diff(self.sources, prepend=-1))
        self._one_each = len(self.sources) == len(self._last)

    def encode(self, numbers: ArrayLike) -> NDArray[np.int64]:
        """Digits int64 ``[B, K]`` of numbers ``[B, N]``, each in [0, count)."""
        values = np.array(numbers, dtype=np.int64)
        if self._one_each:
            return values
        return (values[:, self.sources] // self._divisors) % self.base

    def decode(self, digits: ArrayLike) -> NDArray[np.int64]:
        """Numbers int64 ``[B, N]`` of digits ``[B, K]``; beyond the last, the last."""
        values = np.asarray(digits, dtype=np.int64)
        if self._one_each:
            return np.minimum(values, self._last)
        values = values * self._divisors
        return np.minimum(np.add.reduceat(values, self._starts, axis=1), self._last)
