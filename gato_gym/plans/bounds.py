"""What the numbers of a space's members may be.

* :func:`member_bounds` -- of any space of numbers, in its own dtype.
* :func:`number_bounds` -- of any space of numbers, infinite where there is none.
* :func:`integer_range` -- of a space of integers.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

__all__ = ["integer_range", "member_bounds", "number_bounds"]

UNBOUNDED = 1e30
"""A bound this large is the idiom for "no bound": the largest float32 is 3.4e38."""


def number_bounds(space: gym.Space[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds float64 ``[N]`` of a space's numbers, row-major; infinite where there is none."""
    if isinstance(space, spaces.Box):
        low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
        below, above = space.bounded_below.ravel(), space.bounded_above.ravel()
        return (
            np.where(below & (low > -UNBOUNDED), low, -np.inf),
            np.where(above & (high < UNBOUNDED), high, np.inf),
        )
    least, greatest = integer_range(space)
    return least.ravel().astype(np.float64), greatest.ravel().astype(np.float64)


def member_bounds(space: gym.Space[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bounds ``[N]`` of a space's numbers, row-major, in its own dtype: to compare members with."""
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        below, above = number_bounds(space)
        return below.astype(space.dtype), above.astype(space.dtype)
    low, high = (
        integer_range(space) if not isinstance(space, spaces.Box) else (space.low, space.high)
    )
    return low.ravel(), high.ravel()


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
