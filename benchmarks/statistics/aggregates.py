"""Figures over many tasks, each with its 95 % interval.

* :class:`Aggregate` -- a figure; :func:`averages`, :func:`averages_of_suites` make them.
* :class:`Curve`, :class:`Profile` -- how many episodes and tasks are above each score;
  :func:`profile`.
* :func:`suite_of` -- the suite that a task belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics import bootstrap
from benchmarks.statistics import scores as statistics
from benchmarks.statistics.scores import Average, MeanOfGroups

TaskScores = Mapping[str, NDArray[np.float64]]
"""Scores of episodes, float64 ``[episodes]``, by task id."""

NO_SCORES: TaskScores = MappingProxyType({})

THRESHOLDS = tuple(step / 50 for step in range(-10, 76))
"""Scores at which profiles are evaluated: -0.2 to 1.5, in steps of 0.02."""


@dataclass(frozen=True)
class Aggregate:
    """An average over tasks with its 95 % stratified bootstrap interval.

    ``low`` and ``high`` are None where a task has too few episodes for one.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    tasks: int

    def to_json(self) -> dict[str, Any]:
        """All but the name."""
        entry = asdict(self)
        del entry["name"]
        return entry


@dataclass(frozen=True)
class Curve:
    """A figure at each of several scores, and the ends of its 95 % interval, None without one."""

    value: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None

    def to_json(self) -> dict[str, Any]:
        """By attribute."""
        return {end: None if of is None else list(of) for end, of in asdict(self).items()}


@dataclass(frozen=True)
class Profile:
    """How much is above each score.

    Attributes:
        thresholds: Normalised scores, ascending.
        episodes: Share of episodes strictly above each, in [0, 1], tasks weighing the same: the
            performance profile of Agarwal et al. (arXiv:2108.13264).
        tasks: Number of tasks whose mean is strictly above each: the figure of Reed et al.
            (arXiv:2205.06175).
        count: Number of tasks.
    """

    thresholds: tuple[float, ...]
    episodes: Curve
    tasks: Curve
    count: int

    def to_json(self) -> dict[str, Any]:
        """As JSON, by attribute; the two curves as objects with value, low and high."""
        return {
            "thresholds": list(self.thresholds),
            "episodes": self.episodes.to_json(),
            "tasks": self.tasks.to_json(),
            "count": self.count,
        }


def suite_of(task: str) -> str:
    """The suite that a task id begins with.

    Example:
        >>> suite_of("dm_control-cheetah-run")
        'dm_control'
    """
    return task.split("-", 1)[0]


def averages(
    scores: TaskScores, successes: TaskScores, human: TaskScores = NO_SCORES
) -> tuple[Aggregate, ...]:
    """Averages over all tasks, and the means over suites.

    Args:
        scores: Normalised scores of tasks that are not flagged.
        successes: 1 for an episode that solved its task and 0 for one that did not, of tasks for
            which success is defined.
        human: Scores of episodes of tasks that a human's return is published of: 0 for random
            play as published with it, 1 for the human.

    Returns:
        ``normalised mean``, ``normalised median``, ``normalised IQM``, ``optimality gap``,
        ``mean of suites`` (Gato's mean over domains), ``mean of suites' IQMs`` (JAT's aggregate),
        ``success``, ``human-normalised mean``, ``human-normalised median`` and
        ``human-normalised IQM``; without those that there are no tasks for.
    """
    suites = tuple(map(suite_of, scores))
    groups: list[tuple[str, Average, TaskScores]] = [
        ("normalised mean", statistics.mean_of_tasks, scores),
        ("normalised median", statistics.median_of_tasks, scores),
        ("normalised IQM", statistics.interquartile_mean, scores),
        ("optimality gap", statistics.optimality_gap, scores),
        ("mean of suites", MeanOfGroups(statistics.mean_of_tasks, suites), scores),
        ("mean of suites' IQMs", MeanOfGroups(statistics.interquartile_mean, suites), scores),
        ("success", statistics.mean_of_tasks, successes),
        ("human-normalised mean", statistics.mean_of_tasks, human),
        ("human-normalised median", statistics.median_of_tasks, human),
        ("human-normalised IQM", statistics.interquartile_mean, human),
    ]
    return tuple(_aggregate(*each) for each in groups if each[2])


def averages_of_suites(
    scores: TaskScores, successes: TaskScores, human: TaskScores = NO_SCORES
) -> Mapping[str, tuple[Aggregate, ...]]:
    """:func:`averages` within each suite, without the means over suites; by suite, sorted."""

    def within(suite: str, of: TaskScores) -> TaskScores:
        return {task: values for task, values in of.items() if suite_of(task) == suite}

    return {
        suite: tuple(
            each
            for each in averages(*(within(suite, of) for of in (scores, successes, human)))
            if not each.name.startswith("mean of suites")
        )
        for suite in sorted({suite_of(task) for of in (scores, successes, human) for task in of})
    }


def profile(scores: TaskScores, thresholds: tuple[float, ...] = THRESHOLDS) -> Profile | None:
    """How much of ``scores`` is above each threshold; None without scores."""
    if not scores:
        return None
    episodes, tasks = (
        _curve(average, scores)
        for average in (statistics.EpisodesAbove(thresholds), statistics.TasksAbove(thresholds))
    )
    return Profile(thresholds, episodes, tasks, len(scores))


def _aggregate(name: str, average: Average, scores: TaskScores) -> Aggregate:
    sample = statistics.Sample.of(list(scores.values()))
    value = float(average(sample))
    if not bootstrap.enough(sample):
        return Aggregate(name, value, None, None, len(scores))
    interval = bootstrap.stratified_bootstrap(sample, average)
    return Aggregate(name, value, interval.low, interval.high, len(scores))


def _curve(average: Average, scores: TaskScores) -> Curve:
    sample = statistics.Sample.of(list(scores.values()))
    value = tuple(map(float, np.asarray(average(sample))))
    if not bootstrap.enough(sample):
        return Curve(value, None, None)
    low, high = bootstrap.band_of(bootstrap.replicates(sample, average))
    return Curve(value, tuple(map(float, low)), tuple(map(float, high)))
