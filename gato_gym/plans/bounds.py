"""The bounds of the numbers of a space's members.

* :class:`Bounds` -- the bounds of each number, and whether a batch is within them.
* :func:`member_bounds` -- the bounds of a space of numbers, in its own dtype.
* :func:`number_bounds` -- the same as float64, infinite for unbounded numbers.
* :func:`integer_range` -- the range of a space of integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

__all__ = ["Bounds", "integer_range", "member_bounds", "number_bounds"]

UNBOUNDED = 1e30
"""A bound this large is the idiom for "no bound": the largest float32 is 3.4e38."""


@dataclass(frozen=True)
class Bounds:
    """Inclusive bounds of N numbers: ``low`` and ``high``, both ``[N]``."""

    low: NDArray[Any]
    high: NDArray[Any]

    @cached_property
    def _common(self) -> tuple[Any, Any] | None:
        """The bounds shared by all numbers, or None."""
        if (
            not self.low.size
            or (self.low != self.low[0]).any()
            or (self.high != self.high[0]).any()
        ):
            return None
        return self.low[0], self.high[0]

    def hold(self, numbers: NDArray[Any]) -> bool:
        """Whether all numbers ``[B, N]`` are within their bounds; a NaN is not."""
        if self._common is None or not numbers.size:
            return bool(((numbers >= self.low) & (numbers <= self.high)).all())
        low, high = self._common  # reductions, which write no array; they give NaN where one is
        return bool(
            np.minimum.reduce(numbers, axis=None) >= low
            and (high == np.inf or np.maximum.reduce(numbers, axis=None) <= high)
        )


def number_bounds(space: gym.Space[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds float64 ``[N]`` of a space's numbers, row-major; infinite for unbounded ones."""
    if isinstance(space, spaces.Box):
        low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
        below, above = space.bounded_below.ravel(), space.bounded_above.ravel()
        return (
            np.where(below & (low > -UNBOUNDED), low, -np.inf),
            np.where(above & (high < UNBOUNDED), high, np.inf),
        )
    least, greatest = integer_range(space)
    return least.ravel().astype(np.float64), greatest.ravel().astype(np.float64)


def member_bounds(space: gym.Space[Any]) -> Bounds:
    """Bounds ``[N]`` of a space's numbers, row-major, in the dtype of its members."""
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        below, above = number_bounds(space)
        return Bounds(below.astype(space.dtype), above.astype(space.dtype))
    low, high = (
        integer_range(space) if not isinstance(space, spaces.Box) else (space.low, space.high)
    )
    return Bounds(low.ravel(), high.ravel())


@singledispatch
def integer_range(space: gym.Space[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and greatest value of each integer of a member, both inclusive."""
    raise TypeError(f"{type(space).__name__} holds no integers")


@integer_range.register
def _(space: spaces.Discrete) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array(space.start, np.int64), np.array(space.start + (space.n - 1), np.int64)


@integer_range.register
def _(space: spaces.MultiDiscrete) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    start = np.asarray(space.start, np.int64)
    return start, start + (np.asarray(space.nvec, np.int64) - 1)


@integer_range.register
def _(space: spaces.MultiBinary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.zeros(space.shape, np.int64), np.ones(space.shape, np.int64)


@integer_range.register
def _(space: spaces.Box) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return space.low.astype(np.int64), space.high.astype(np.int64)
