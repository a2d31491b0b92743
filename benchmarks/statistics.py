"""The arithmetic of a benchmark: normalised scores, their averages, and how sure one may be.

* :func:`beats_random` -- whether a task's expert is good enough to normalise by.
* :func:`normalised_score` -- ``(x - random) / (expert - random)``, never clipped.
* :func:`mean_of_tasks`, :func:`interquartile_mean` -- averages over tasks and episodes.
* :func:`stratified_bootstrap` -- an :class:`Interval` for any such average.

An average takes one array a task, ``[..., episodes]``, and reduces tasks and last axes. Leading
axes pass through, so that the same function gives the estimate from ``[episodes]`` and all its
bootstrap replicates from ``[replicates, episodes]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = Sequence[NDArray[np.float64]]
"""One array a task: float64 ``[..., episodes]``. Tasks may have different numbers of episodes."""

Average = Callable[[Scores], NDArray[np.float64]]
"""From :data:`Scores` to float64 ``[...]``."""

_CHUNK = 4_000_000
"""Numbers held at once by a bootstrap (32 MB)."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of what was averaged.

    Attributes:
        low: Lower end.
        high: Upper end.

    Example:
        >>> Interval(0.25, 0.5)
        Interval(low=0.25, high=0.5)
    """

    low: float
    high: float


def beats_random(*, random: float, expert: float) -> bool:
    """Whether the expert's mean return is above random's, so that normalising means something."""
    return bool(expert > random)


def normalised_score(returns: ArrayLike, *, random: float, expert: float) -> NDArray[np.float64]:
    """Returns on a scale where random play is 0 and the expert 1; nothing is clipped.

    Args:
        returns: Episode returns, any shape.
        random: Mean return of random actions.
        expert: Mean return of the expert.

    Returns:
        ``(returns - random) / (expert - random)``, float64, the same shape.

    Raises:
        ValueError: The expert does not beat random.

    Example:
        >>> normalised_score([0.0, 5.0, 12.5], random=5.0, expert=10.0)
        array([-1. ,  0. ,  1.5])
    """
    if not beats_random(random=random, expert=expert):
        raise ValueError(
            f"expert return {expert:g} is not above random return {random:g}: "
            "a score cannot be normalised by it, leave the task out"
        )
    return (np.asarray(returns, dtype=np.float64) - random) / (expert - random)


def mean_of_tasks(scores: Scores) -> NDArray[np.float64]:
    """Mean over tasks of each task's mean over episodes.

    Example:
        >>> float(mean_of_tasks([np.array([0.0, 1.0]), np.array([1.0])]))
        0.75
    """
    return np.asarray(np.mean([task.mean(axis=-1) for task in _checked(scores)], axis=0))


def interquartile_mean(scores: Scores) -> NDArray[np.float64]:
    """Mean of the middle half of all episodes of all tasks (Agarwal et al., arXiv:2108.13264).

    The lowest and the highest ``floor(n / 4)`` of the n episodes are left out.

    Example:
        >>> float(interquartile_mean([np.array([0.0, 1.0]), np.array([2.0, 99.0])]))
        1.5
    """
    pooled = np.concatenate(_checked(scores), axis=-1)
    cut = pooled.shape[-1] // 4
    if cut:
        pooled = np.partition(pooled, (cut, pooled.shape[-1] - cut - 1), axis=-1)
        pooled = pooled[..., cut : pooled.shape[-1] - cut]
    return np.asarray(pooled.mean(axis=-1))


def stratified_bootstrap(
    scores: Scores,
    average: Average,
    *,
    repetitions: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of an average, episodes redrawn within each task.

    Args:
        scores: One array a task, float64 ``[episodes]``.
        average: :func:`mean_of_tasks`, :func:`interquartile_mean`, or one like them.
        repetitions: Number of replicates.
        confidence: Probability mass inside the interval, in (0, 1).
        seed: Seed of the redrawing: the same scores and seed give the same interval.

    Returns:
        The interval between the ``(1 - confidence) / 2`` quantiles from either end.

    Raises:
        ValueError: No scores, or ``confidence`` outside (0, 1).

    Example:
        >>> stratified_bootstrap([np.array([3.0, 3.0])], mean_of_tasks)
        Interval(low=3.0, high=3.0)
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(
            f"confidence is {confidence}, expected a number between 0 and 1: pass 0.95"
        )
    tasks = _checked(scores)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // sum(task.size for task in tasks))
    replicates: list[NDArray[np.float64]] = []
    for done in range(0, repetitions, chunk):
        count = min(chunk, repetitions - done)
        redrawn = [
            task[generator.integers(task.size, size=(count, task.size), dtype=np.int32)]
            for task in tasks
        ]
        replicates.append(average(redrawn))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.concatenate(replicates), (tail, 1.0 - tail))
    return Interval(float(low), float(high))


def _checked(scores: Scores) -> list[NDArray[np.float64]]:
    tasks = [np.asarray(task, dtype=np.float64) for task in scores]
    if not tasks or not all(task.shape[-1] for task in tasks):
        sizes = [task.shape[-1] for task in tasks]
        raise ValueError(
            f"got tasks of {sizes} episodes, expected at least one of each: drop the rest"
        )
    return tasks
