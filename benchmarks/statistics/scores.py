"""The arithmetic of a benchmark: normalised scores and their averages.

* :func:`beats_random` -- whether a task's expert is good enough to normalise by.
* :func:`normalised_score` -- ``(x - random) / (expert - random)``, never clipped.
* :class:`Sample` -- episodes' scores, task by task.
* :func:`mean_of_tasks`, :func:`median_of_tasks`, :func:`interquartile_mean`,
  :func:`optimality_gap`, :class:`EpisodesAbove`, :class:`TasksAbove`, :class:`MeanOfGroups` --
  averages over tasks and episodes.
* :func:`probability_of_improvement` -- how often one player's episode beats another's.

Definitions are those of Agarwal et al., *Deep Reinforcement Learning at the Edge of the
Statistical Precipice* (arXiv:2108.13264), which ``rliable`` implements.

An average takes a :class:`Sample` and, for a bootstrap, how often each of its episodes was drawn:
``counts``, an integer array ``[replicates, episodes of all tasks]`` whose entries of a task sum to
the task's number of episodes. Without counts every episode counts once and the leading axis of
the answer is left away. Counting is what makes a bootstrap fast: nothing is copied or sorted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]
"""How often each episode was drawn: int64 ``[replicates, episodes of all tasks]``."""


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


@dataclass(frozen=True)
class Sample:
    """The scores of all episodes, those of a task side by side.

    Attributes:
        values: float64 ``[episodes of all tasks]``.
        sizes: Episodes of each task, each 1 or more, int64 ``[tasks]``.

    Example:
        >>> Sample.of([[1.0, 2.0], [3.0]]).sizes
        array([2, 1])
    """

    values: NDArray[np.float64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Scores) -> Sample:
        """From one sequence of scores a task, which may have different lengths.

        Raises:
            ValueError: No task, a task without episodes, or a score that is not finite.
        """
        if isinstance(scores, Sample):
            return scores
        tasks = [np.asarray(task, dtype=np.float64) for task in scores]
        sizes = [task.size for task in tasks]
        if not tasks or not all(sizes):
            raise ValueError(
                f"got tasks of {sizes} episodes, expected at least one of each: drop the rest"
            )
        values = np.concatenate([task.ravel() for task in tasks])
        if not np.isfinite(values).all():
            raise ValueError(
                f"got {int((~np.isfinite(values)).sum())} scores that are not finite, expected "
                "numbers: leave episodes that failed out"
            )
        return cls(values, np.array(sizes))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each task begins in ``values``: int64 ``[tasks]``."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """What sorts ``values`` ascending: int64 ``[episodes of all tasks]``."""
        return np.argsort(self.values, kind="stable")

    @cached_property
    def sorted_values(self) -> NDArray[np.float64]:
        """``values``, ascending."""
        return self.values[self.order]

    @cached_property
    def task_weights(self) -> NDArray[np.float64]:
        """Weights under which every task weighs the same; they sum to 1."""
        return np.repeat(1.0 / (self.sizes * len(self.sizes)), self.sizes)


Scores = Sample | Sequence[ArrayLike]
"""A :class:`Sample`, or what it can be made of: one array of scores a task."""


class Average(Protocol):
    """What a bootstrap redraws: from scores, and how often each counts, to a figure or several."""

    def __call__(self, scores: Scores, counts: Counts | None = None) -> NDArray[np.float64]:
        """float64 ``[...]``; with counts, ``[replicates, ...]``."""


def task_means(scores: Scores, counts: Counts | None = None) -> NDArray[np.float64]:
    """Each task's mean over its episodes: float64 ``[tasks]``, or ``[replicates, tasks]``."""
    sample = Sample.of(scores)
    return _task_means(sample, sample.values, counts)


def mean_of_tasks(scores: Scores, counts: Counts | None = None) -> NDArray[np.float64]:
    """Mean over tasks of each task's mean over episodes.

    Example:
        >>> float(mean_of_tasks([[0.0, 1.0], [1.0]]))
        0.75
    """
    return np.asarray(task_means(scores, counts).mean(axis=-1))


def median_of_tasks(scores: Scores, counts: Counts | None = None) -> NDArray[np.float64]:
    """Median over tasks of each task's mean over episodes.

    Example:
        >>> float(median_of_tasks([[0.0, 1.0], [1.0], [9.0]]))
        1.0
    """
    return np.asarray(np.median(task_means(scores, counts), axis=-1))


def optimality_gap(
    scores: Scores, counts: Counts | None = None, *, target: float = 1.0
) -> NDArray[np.float64]:
    """How far below ``target`` the tasks are, episodes above it counting as if they were at it.

    Returns:
        ``target - mean(min(score, target))``, every task weighing the same. 0 is best.

    Example:
        >>> float(optimality_gap([[0.5, 9.0], [1.0]]))
        0.125
    """
    sample = Sample.of(scores)
    means = _task_means(sample, np.minimum(sample.values, target), counts)
    return np.asarray(target - means.mean(axis=-1))


def interquartile_mean(scores: Scores, counts: Counts | None = None) -> NDArray[np.float64]:
    """Mean of the middle half of all episodes of all tasks.

    The lowest and the highest ``floor(n / 4)`` of the n episodes are left out.

    Example:
        >>> float(interquartile_mean([[0.0, 1.0], [2.0, 99.0]]))
        1.5
    """
    sample = Sample.of(scores)
    values = sample.sorted_values
    cut = len(values) // 4
    if counts is None:
        return np.asarray(values[cut : len(values) - cut].mean())
    kept = len(values) - 2 * cut
    # Of the episodes up to the i-th smallest, so many are in the middle half; summed by parts.
    upto = np.cumsum(counts[:, sample.order], axis=1)
    upto -= cut
    np.clip(upto, 0, kept, out=upto)
    return np.asarray(values[-1] - upto[:, :-1].astype(np.float64) @ np.diff(values) / kept)


@dataclass(frozen=True)
class EpisodesAbove:
    """A performance profile: the share of episodes above each threshold, tasks weighing the same.

    Attributes:
        thresholds: Ascending.

    Example:
        >>> EpisodesAbove((0.0, 0.5))([[0.1, 0.9], [0.5]])
        array([1.  , 0.25])
    """

    thresholds: tuple[float, ...]

    def __call__(self, scores: Scores, counts: Counts | None = None) -> NDArray[np.float64]:
        """float64 in [0, 1], ``[..., thresholds]``."""
        sample = Sample.of(scores)
        if counts is None:
            return self(sample, np.ones((1, len(sample.values)), np.int64))[0]
        upto = np.zeros((len(counts), len(sample.values) + 1))
        np.cumsum((counts * sample.task_weights)[:, sample.order], axis=1, out=upto[:, 1:])
        below = np.searchsorted(sample.sorted_values, self.thresholds, side="right")
        return np.clip(1.0 - upto[:, below], 0.0, 1.0)


@dataclass(frozen=True)
class TasksAbove:
    """The number of tasks whose mean is above each threshold, as Reed et al. (arXiv:2205.06175)
    plot it.

    Attributes:
        thresholds: Any numbers.

    Example:
        >>> TasksAbove((0.0, 0.5))([[0.1, 0.9], [0.2]])
        array([2., 0.])
    """

    thresholds: tuple[float, ...]

    def __call__(self, scores: Scores, counts: Counts | None = None) -> NDArray[np.float64]:
        """float64 in [0, tasks], ``[..., thresholds]``."""
        means = np.sort(task_means(scores, counts), axis=-1)
        above = [(means > threshold).sum(axis=-1) for threshold in self.thresholds]
        return np.stack(above, axis=-1).astype(np.float64)


@dataclass(frozen=True)
class MeanOfGroups:
    """The mean over groups of tasks, such as suites, of an average over each group.

    Of :func:`mean_of_tasks` it is Gato's mean over domains; of :func:`interquartile_mean`, the
    aggregate that JAT's headline is.

    Attributes:
        average: Average of one group.
        groups: The group of each task, by any names.

    Example:
        >>> groups = MeanOfGroups(mean_of_tasks, ("a", "a", "b"))
        >>> float(groups([[0.0], [0.5], [1.0]]))
        0.625
    """

    average: Average
    groups: tuple[str, ...]

    def __call__(self, scores: Scores, counts: Counts | None = None) -> NDArray[np.float64]:
        """float64 ``[...]``."""
        sample = Sample.of(scores)
        assert len(self.groups) == len(sample.sizes)
        of_task = np.array(self.groups)
        figures = []
        for group in dict.fromkeys(self.groups):
            chosen = np.repeat(of_task == group, sample.sizes)
            part = Sample(sample.values[chosen], sample.sizes[of_task == group])
            figures.append(self.average(part, None if counts is None else counts[:, chosen]))
        return np.asarray(np.mean(figures, axis=0))


def probability_of_improvement(
    scores: Scores,
    others: Scores,
    counts: Counts | None = None,
    other_counts: Counts | None = None,
) -> NDArray[np.float64]:
    """How probably an episode scores above another player's of the same task, ties counting half.

    Args:
        scores: One player's.
        others: The other's, of the same tasks in the same order.
        counts: How often each of ``scores`` was drawn; given with ``other_counts``, or not at all.
        other_counts: How often each of ``others`` was drawn.

    Returns:
        The mean over tasks of the Mann-Whitney statistic ``U / (n m)``, in [0, 1]: float64 ``[]``,
        or ``[replicates]``.

    Example:
        >>> float(probability_of_improvement([[1.0, 3.0]], [[0.0, 3.0]]))
        0.625
    """
    one, other = Sample.of(scores), Sample.of(others)
    assert len(one.sizes) == len(other.sizes)
    assert (counts is None) == (other_counts is None)
    if counts is None or other_counts is None:
        ones = [np.ones((1, len(sample.values)), np.int64) for sample in (one, other)]
        return np.asarray(probability_of_improvement(one, other, *ones)[0])
    total: Any = 0.0
    for task in range(len(one.sizes)):
        of_one, of_other = (
            slice(sample.starts[task], sample.starts[task] + sample.sizes[task])
            for sample in (one, other)
        )
        mine, theirs = one.values[of_one, None], other.values[None, of_other]
        better = (mine > theirs) + 0.5 * (mine == theirs)
        wins = ((counts[:, of_one] @ better) * other_counts[:, of_other]).sum(axis=-1)
        total = total + wins / better.size
    return np.asarray(total / len(one.sizes))


def _task_means(
    sample: Sample, values: NDArray[np.float64], counts: Counts | None
) -> NDArray[np.float64]:
    weighted = values if counts is None else counts * values
    if (sample.sizes == sample.sizes[0]).all():
        shape = (*weighted.shape[:-1], len(sample.sizes), int(sample.sizes[0]))
        return weighted.reshape(shape).sum(axis=-1) / sample.sizes
    return np.add.reduceat(weighted, sample.starts, axis=-1) / sample.sizes
