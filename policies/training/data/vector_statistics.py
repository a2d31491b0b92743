"""Statistics of the vectors of episodes, as token options.

* :class:`VectorMoments` -- count, mean and squared deviations of each number, to be added up.
* :func:`moments` -- those of some episodes.
* :func:`with_statistics` -- the options that normalise by them.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gato_gym.episodes.episode import Episode
from gato_gym.options import PlanOptions
from gato_gym.spaces import Plan
from policies.gato.prompts import first_steps

SINGLE = np.finfo(np.float32)
ROUNDING = 4.0
"""A number is constant if it deviates by at most so many spacings of its dtype at its mean."""


@dataclass(frozen=True)
class VectorMoments:
    """Moments of each number of some vectors.

    A number whose magnitude is beyond float32, such as an infinity, is left out: in the tokens it
    is clipped.

    Attributes:
        count: float64 ``[N]``, how many values there are.
        mean: float64 ``[N]``, 0 where there is none.
        squares: float64 ``[N]``, the sum of squared deviations from the mean.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: NDArray[np.float64]) -> VectorMoments:
        """Those of vectors ``[B, N]``, in two passes."""
        counted = np.abs(vectors) <= float(SINGLE.max)
        count = counted.sum(0, dtype=np.float64)
        divisor = np.maximum(count, 1)
        mean = np.where(counted, vectors, 0.0).sum(0) / divisor
        mean += (np.where(counted, vectors, mean) - mean).sum(0) / divisor  # the sum's rounding
        deviations = np.where(counted, vectors, mean) - mean
        return cls(count, mean, (deviations**2).sum(0))

    def __add__(self, other: VectorMoments) -> VectorMoments:
        """Those of both together, after Chan, Golub and LeVeque (1979)."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.count * share
        return VectorMoments(count, self.mean + apart * share, squares)


def moments(plan: Plan, episodes: Iterable[Episode]) -> VectorMoments:
    """Moments of the raw vectors of some episodes."""
    raw = (plan.raw_vectors(first_steps(e.observations, e.length)) for e in episodes)
    none = VectorMoments.of(np.zeros((0, plan.vector_length)))
    return functools.reduce(operator.add, map(VectorMoments.of, raw), none)


def with_statistics(plan: Plan, parts: Sequence[VectorMoments]) -> PlanOptions:
    """The plan's options with the mean and standard deviation of some moments.

    Args:
        plan: Plan that encodes the vectors.
        parts: At least one. A number that deviates from its mean by no more than rounding counts as
            constant: its deviation is 1.
    """
    total = functools.reduce(operator.add, parts)
    std = np.sqrt(total.squares / np.maximum(total.count, 1))
    rounding = ROUNDING * plan.vector_resolution * np.abs(total.mean)
    std = np.where(std > np.maximum(rounding, float(SINGLE.tiny)), std, 1.0)
    return dataclasses.replace(
        plan.options, vector_mean=tuple(total.mean.tolist()), vector_std=tuple(std.tolist())
    )
