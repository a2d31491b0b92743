"""Encoded steps as points: the closer two points, the more alike the steps.

* :class:`Keys` -- from encoded steps to points.
* :func:`covering` -- the steps that cover an episode best.

Shapes: B rows, F numbers of a point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gato_gym.spaces import TokenizedBatch
from gato_gym.vocabulary import Vocabulary

IMAGE_WEIGHT = 32.0
"""A whole image counts as much as so many numbers."""

DIFFERING = 2.0
"""Squared distance of symbols that differ: the expected one of two draws of a normalised number."""

CONSTANT = 1e-6
"""A number is constant if it deviates by no more than this share of its mean."""

Points = NDArray[np.float32]


class Keys:
    """How steps become points, by the demonstrations' statistics.

    The squared distance of two points is a sum over the parts of the steps. Numbers count by their
    difference in standard deviations. Symbols (choices, and the cells of grids) count
    :data:`DIFFERING` where they are not equal. Pixels count by their difference, scaled so that
    an image counts as :data:`IMAGE_WEIGHT` numbers. What no demonstrated step differs in is left
    out, as it makes none of them nearer. Texts are compared elsewhere.

    Args:
        steps: The demonstrated steps.
        vocabulary: Whose ids theirs are.

    Example:
        >>> from gymnasium import spaces
        >>> from gato_gym import compile_plan
        >>> plan = compile_plan(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
        >>> steps = plan.encode_batch(np.array([[-1, 0.5], [1, 0.5]], np.float32))
        >>> Keys(steps, plan.vocabulary)(steps).tolist()
        [[-1.0], [1.0]]
    """

    def __init__(self, steps: TokenizedBatch, vocabulary: Vocabulary) -> None:
        bins = vocabulary.continuous
        self._binned = ((steps.ids >= bins.start) & (steps.ids < bins.stop)).all(axis=0)
        numbers, symbols, pixels = self._parts(steps)
        self._mean, spread = numbers.mean(axis=0), numbers.std(axis=0)
        self._numbers = np.flatnonzero(spread > CONSTANT * np.abs(self._mean))
        self._mean, self._spread = self._mean[self._numbers], spread[self._numbers]
        values = [np.unique(column) for column in symbols.T]
        values = [each if len(each) > 1 else each[:0] for each in values]
        self._column = np.repeat(np.arange(len(values)), [len(each) for each in values])
        self._value = np.concatenate([np.zeros(0, symbols.dtype), *values])
        self._centre = pixels.mean(axis=0, dtype=np.float64).astype(np.float32)
        total = float(pixels.var(axis=0, dtype=np.float64).sum())
        self._contrast = np.float32(np.sqrt(IMAGE_WEIGHT / total)) if total else np.float32(0)

    def __call__(self, steps: TokenizedBatch) -> Points:
        """The points of steps of the same plan, float32 ``[B, F]``."""
        numbers, symbols, pixels = self._parts(steps)
        scaled = (numbers[:, self._numbers] - self._mean) / self._spread
        same = (symbols[:, self._column] == self._value) * np.sqrt(DIFFERING / 2)
        contrasts = (pixels - self._centre) * self._contrast
        return np.concatenate([scaled, same, contrasts], axis=1, dtype=np.float32)

    def _parts(
        self, steps: TokenizedBatch
    ) -> tuple[NDArray[np.float64], NDArray[np.integer], NDArray[np.uint8]]:
        """Numbers, symbols and pixels, each ``[B, n]``."""
        rows = len(steps)
        vectors, bins = steps.vectors.reshape(rows, -1), steps.ids[:, self._binned]
        grids = steps.grids.reshape(rows, -1)
        return (
            np.concatenate([vectors, bins], axis=1, dtype=np.float64),
            np.concatenate([steps.ids[:, ~self._binned], grids], axis=1),
            steps.images.reshape(rows, -1),
        )


def covering(points: Points, count: int) -> NDArray[np.intp]:
    """Points that cover all of them: the last, then always the one farthest from those chosen.

    Each is thus within twice the least radius at which so many points cover all (Gonzalez, 1985).

    Args:
        points: float32 ``[B, F]``.
        count: How many to choose, at most B.

    Returns:
        int ``[count]``, their places, in ascending order. Where places are at the
        same distance, the first is chosen.

    Example:
        >>> covering(np.array([[0], [9], [1], [5], [0]], np.float32), 3).tolist()
        [1, 3, 4]
    """
    chosen = np.zeros(count, np.intp)
    distances = np.full(len(points), np.inf)
    for number in range(count):
        chosen[number] = np.argmax(distances) if number else len(points) - 1
        apart = ((points - points[chosen[number]]) ** 2).sum(axis=1, dtype=np.float64)
        distances = np.minimum(distances, apart)
        distances[chosen[: number + 1]] = -1.0
    return np.sort(chosen)
