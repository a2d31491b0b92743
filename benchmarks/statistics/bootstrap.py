"""How sure one may be of an average: the stratified bootstrap.

* :class:`Interval` -- a figure's confidence interval.
* :func:`stratified_bootstrap` -- the interval of an average; episodes are redrawn within tasks.
* :func:`replicates` -- what it is made from, for an average of several figures.
* :func:`paired_replicates` -- the same for a :data:`PairFigure` of two players, such as
  :func:`difference_of` an average.
* :func:`interval_of`, :func:`band_of` -- from replicates to intervals.
* :func:`enough`, :data:`FEWEST` -- whether there are episodes enough for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics.scores import Average, Counts, Sample, Scores

FEWEST = 5
"""Episodes of a task below which its figures have no interval: of one episode every replicate is
that episode, and of two or three most are."""

REPETITIONS = 2000
"""Replicates of a bootstrap, by default."""

_CHUNK = 100_000
"""Episodes redrawn at a time: the working memory of a chunk stays in a processor's cache."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval: its ends, in the unit of what was averaged."""

    low: float
    high: float


def enough(scores: Scores) -> bool:
    """Whether every task has the episodes that an interval takes.

    Example:
        >>> enough([[1.0, 2.0, 3.0, 4.0, 5.0]]), enough([[1.0, 2.0, 3.0, 4.0, 5.0], [1.0]])
        (True, False)
    """
    return bool(Sample.of(scores).sizes.min() >= FEWEST)


def stratified_bootstrap(
    scores: Scores,
    average: Average,
    *,
    repetitions: int = REPETITIONS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of an average, episodes redrawn within each task.

    Args:
        scores: One array a task, float64 ``[episodes]``.
        average: :func:`benchmarks.statistics.scores.mean_of_tasks` or one like it, of one figure.
        repetitions: Number of replicates.
        confidence: Probability mass inside the interval, in (0, 1).
        seed: Seed of the redrawing: the same scores and seed give the same interval.

    Returns:
        The interval between the ``(1 - confidence) / 2`` quantiles from either end.

    Raises:
        ValueError: No scores, or ``confidence`` outside (0, 1).

    Example:
        >>> from benchmarks.statistics.scores import mean_of_tasks
        >>> stratified_bootstrap([[3.0, 3.0]], mean_of_tasks)
        Interval(low=3.0, high=3.0)
    """
    return interval_of(
        replicates(scores, average, repetitions=repetitions, seed=seed), confidence=confidence
    )


def replicates(
    scores: Scores, average: Average, *, repetitions: int = REPETITIONS, seed: int = 0
) -> NDArray[np.float64]:
    """An average of redrawn episodes, again and again: float64 ``[repetitions, ...]``.

    Raises:
        ValueError: No scores.
    """
    sample = Sample.of(scores)
    return np.concatenate(
        [average(sample, counts) for counts in _redrawn(sample.sizes, repetitions, seed)]
    )


PairFigure = Callable[[Sample, Sample, Counts, Counts], NDArray[np.float64]]
"""A figure of two players' episodes and of how often each was drawn: float64 ``[replicates, ...]``;
:func:`benchmarks.statistics.scores.probability_of_improvement` is one."""


def difference_of(average: Average) -> PairFigure:
    """The difference ``average(scores) - average(others)``."""
    return lambda one, other, counts, others: average(one, counts) - average(other, others)


def paired_replicates(
    scores: Scores,
    others: Scores,
    figure: PairFigure,
    *,
    paired: bool = True,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> NDArray[np.float64]:
    """A figure of two players' redrawn episodes, again and again.

    Args:
        scores: One player's.
        others: The other's, of the same tasks in the same order.
        figure: Statistic of both, such as :func:`difference_of` an average.
        paired: The k-th episodes of both are the same episode, and are drawn together. What is
            common to both, such as a hard start, then does not widen the interval.
        repetitions: Number of replicates.
        seed: Seed of the redrawing.

    Returns:
        float64 ``[repetitions, ...]``.

    Raises:
        ValueError: No scores, or pairs are asked for and the numbers of episodes differ.
    """
    one, other = Sample.of(scores), Sample.of(others)
    if paired and not np.array_equal(one.sizes, other.sizes):
        raise ValueError(
            f"got {one.sizes.tolist()} and {other.sizes.tolist()} episodes of the tasks, "
            "expected pairs: leave episodes out that only one has, or pass paired=False"
        )
    if paired:
        drawn = ((counts, counts) for counts in _redrawn(one.sizes, repetitions, seed))
    else:
        # Independently, of both at once: the two are tasks of one sample that is cut in halves.
        cut, sizes = len(one.values), np.concatenate([one.sizes, other.sizes])
        drawn = ((both[:, :cut], both[:, cut:]) for both in _redrawn(sizes, repetitions, seed))
    return np.concatenate([figure(one, other, *counts) for counts in drawn])


def interval_of(drawn: NDArray[np.float64], *, confidence: float = 0.95) -> Interval:
    """The percentile interval of replicates ``[repetitions]``.

    Raises:
        ValueError: ``confidence`` outside (0, 1).
    """
    low, high = band_of(drawn, confidence=confidence)
    return Interval(float(low), float(high))


def band_of(
    drawn: NDArray[np.float64], *, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends ``[...]`` of the percentile intervals of ``[repetitions, ...]``.

    Raises:
        ValueError: ``confidence`` outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(
            f"confidence is {confidence}, expected a number between 0 and 1: pass 0.95"
        )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, (tail, 1.0 - tail), axis=0)
    return low, high


def _redrawn(sizes: NDArray[np.int64], repetitions: int, seed: int) -> Iterator[Counts]:
    """How often each episode is drawn, a chunk of replicates at a time."""
    generator = np.random.default_rng(seed)
    total = int(sizes.sum())
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    even = bool((sizes == sizes[0]).all())
    offsets = np.repeat(starts, sizes)
    chunk = max(1, _CHUNK // total)
    for done in range(0, repetitions, chunk):
        count = min(chunk, repetitions - done)
        if even:
            drawn = generator.integers(sizes[0], size=(count, total), dtype=_smallest(sizes[0]))
        else:
            drawn = np.concatenate(
                [
                    generator.integers(size, size=(count, size), dtype=_smallest(sizes.max()))
                    for size in sizes
                ],
                axis=1,
            )
        positions = drawn + (offsets + np.arange(count)[:, None] * total)
        yield np.bincount(positions.ravel(), minlength=count * total).reshape(count, total)


def _smallest(size: np.int64) -> type[np.uint16] | type[np.uint32]:
    """The type that random indices below ``size`` are drawn fastest in."""
    return np.uint16 if size <= 2**16 else np.uint32
