"""Averages against values worked out by hand, by plain loops, and by rliable."""

from __future__ import annotations

import math
import statistics as plain
import time
from typing import Any

import numpy as np
import pytest

from benchmarks.statistics import bootstrap
from benchmarks.statistics.scores import (
    EpisodesAbove,
    MeanOfGroups,
    Sample,
    TasksAbove,
    beats_random,
    interquartile_mean,
    mean_of_tasks,
    median_of_tasks,
    normalised_score,
    optimality_gap,
    probability_of_improvement,
    task_means,
)

THRESHOLDS = tuple(np.linspace(-0.5, 1.5, 41).tolist())
AVERAGES = [
    mean_of_tasks,
    median_of_tasks,
    interquartile_mean,
    optimality_gap,
    EpisodesAbove(THRESHOLDS),
    TasksAbove(THRESHOLDS),
    MeanOfGroups(interquartile_mean, ("a", "b", "a", "c")),
]


def test_normalised_score_is_zero_at_random_one_at_expert_and_never_clipped() -> None:
    scores = normalised_score([-10.0, 0.0, 5.0, 20.0], random=-10.0, expert=10.0)
    assert scores.tolist() == [0.0, 0.5, 0.75, 1.5]
    assert normalised_score(-30.0, random=-10.0, expert=10.0) == -1.0


@pytest.mark.parametrize(("random", "expert"), [(23.1, 20.4), (0.0, 0.0)])
def test_expert_not_above_random_is_refused(random: float, expert: float) -> None:
    assert not beats_random(random=random, expert=expert)
    with pytest.raises(ValueError, match=r"expert return .* is not above random return"):
        normalised_score([1.0], random=random, expert=expert)


def test_averages_by_hand() -> None:
    tasks = [[1.0, 1.0, 1.0, 3.0], [0.0], [0.5, 0.7]]
    assert task_means(tasks).tolist() == [1.5, 0.0, 0.6]
    assert mean_of_tasks(tasks) == pytest.approx(0.7)
    assert median_of_tasks(tasks) == pytest.approx(0.6)
    assert optimality_gap(tasks) == pytest.approx((0.0 + 1.0 + 0.4) / 3)
    assert optimality_gap(tasks, target=2.0) == pytest.approx((0.75 + 2.0 + 1.4) / 3)
    assert TasksAbove((-1.0, 0.0, 0.6, 1.5))(tasks).tolist() == [3.0, 2.0, 1.0, 0.0]
    above = EpisodesAbove((-1.0, 0.0, 0.5, 0.99, 1.0, 3.0))(tasks)
    assert above == pytest.approx(np.array([3.0, 2.0, 1.5, 1.0, 0.25, 0.0]) / 3)
    groups = MeanOfGroups(mean_of_tasks, ("a", "b", "a"))
    assert groups(tasks) == pytest.approx(((1.5 + 0.6) / 2 + 0.0) / 2)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 11, 40])
def test_interquartile_mean_leaves_out_a_quarter_at_each_end(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    ordered = sorted(values.tolist())
    cut = math.floor(0.25 * count)
    kept = ordered[cut : count - cut]
    half = count // 2
    tasks = [values[:half], values[half:]] if half else [values]
    assert interquartile_mean(tasks) == pytest.approx(sum(kept) / len(kept), abs=1e-12)


def test_interquartile_mean_ignores_outliers() -> None:
    assert interquartile_mean([np.array([-1e9, 1.0]), np.array([3.0, 1e9])]) == 2.0


def test_probability_of_improvement_by_plain_loops() -> None:
    generator = np.random.default_rng(4)
    mine = [generator.integers(0, 4, size=size).astype(float) for size in (5, 3)]
    theirs = [generator.integers(0, 4, size=size).astype(float) for size in (2, 6)]
    shares = [
        plain.mean((a > b) + 0.5 * (a == b) for a in task for b in other)
        for task, other in zip(mine, theirs, strict=True)
    ]
    assert probability_of_improvement(mine, theirs) == pytest.approx(plain.mean(shares))
    assert probability_of_improvement(mine, mine) == 0.5


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (5, 9, 1, 2)])
def test_counting_episodes_equals_repeating_them(average: Any, sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    # In sixteenths: sums are exact, and so is what is above a threshold.
    tasks = [np.round(16 * generator.normal(0.5, size=size)) / 16 for size in sizes]
    drawn = [generator.integers(size, size=(7, size)) for size in sizes]
    counts = np.concatenate(
        [
            np.stack([np.bincount(row, minlength=size) for row in rows])
            for rows, size in zip(drawn, sizes, strict=True)
        ],
        axis=1,
    )
    together = average(tasks, counts)
    for replicate in range(7):
        repeated = [task[rows[replicate]] for task, rows in zip(tasks, drawn, strict=True)]
        assert together[replicate] == pytest.approx(average(repeated), abs=1e-12)


def test_empty_and_infinite_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one of each"):
        mean_of_tasks([np.array([1.0]), np.array([])])
    with pytest.raises(ValueError, match="1 scores that are not finite"):
        mean_of_tasks([[1.0, math.nan]])


class TestBesideRliable:
    """The same arrays in rliable 1.2, the implementation by the definitions' authors."""

    def scores(self, seed: int, episodes: int = 20, tasks: int = 50) -> Any:
        generator = np.random.default_rng(seed)
        return generator.normal(0.5, 0.6, size=(episodes, tasks)) + generator.normal(size=tasks)

    def test_figures_are_equal(self) -> None:
        metrics = pytest.importorskip("rliable.metrics")
        library = pytest.importorskip("rliable.library")
        for seed in range(5):
            scores, others = self.scores(seed), self.scores(seed + 100, episodes=13)
            for ours, theirs in (
                (mean_of_tasks, metrics.aggregate_mean),
                (median_of_tasks, metrics.aggregate_median),
                (interquartile_mean, metrics.aggregate_iqm),
                (optimality_gap, metrics.aggregate_optimality_gap),
            ):
                assert ours(scores.T) == pytest.approx(theirs(scores), abs=1e-9)
            thresholds = np.array(THRESHOLDS)
            assert EpisodesAbove(THRESHOLDS)(scores.T) == pytest.approx(
                library.score_distributions(scores, thresholds), abs=1e-9
            )
            assert TasksAbove(THRESHOLDS)(scores.T) / 50 == pytest.approx(
                library.average_score_distributions(scores, thresholds), abs=1e-9
            )
            assert probability_of_improvement(scores.T, others.T) == pytest.approx(
                metrics.probability_of_improvement(scores, others), abs=1e-9
            )

    def test_intervals_agree_and_all_of_a_report_takes_a_tenth_of_the_time(self) -> None:
        metrics = pytest.importorskip("rliable.metrics")
        library = pytest.importorskip("rliable.library")
        scores, others = self.scores(1), self.scores(2)
        figures = (mean_of_tasks, median_of_tasks, interquartile_mean, optimality_gap)

        def of_rliable(drawn: Any) -> Any:
            return np.array(
                [
                    metrics.aggregate_mean(drawn),
                    metrics.aggregate_median(drawn),
                    metrics.aggregate_iqm(drawn),
                    metrics.aggregate_optimality_gap(drawn),
                ]
            )

        def all_figures(sample: Any, counts: Any = None) -> Any:
            return np.stack([figure(sample, counts) for figure in figures], axis=-1)

        few = 25  # repetitions of what takes rliable long; times are for each repetition
        started = time.process_time()
        _, expected = library.get_interval_estimates({"a": scores}, of_rliable, reps=1000)
        theirs = (time.process_time() - started) / 1000
        started = time.process_time()
        library.create_performance_profile({"a": scores}, np.array(THRESHOLDS), reps=few)
        library.get_interval_estimates(
            {"a": (scores, others)},
            lambda *both: np.array([metrics.probability_of_improvement(*both)]),
            reps=few,
        )
        theirs += (time.process_time() - started) / few

        started = time.process_time()
        bands = bootstrap.band_of(bootstrap.replicates(scores.T, all_figures))
        bootstrap.replicates(scores.T, EpisodesAbove(THRESHOLDS))
        bootstrap.paired_replicates(scores.T, others.T, probability_of_improvement, paired=False)
        ours = (time.process_time() - started) / bootstrap.REPETITIONS
        assert theirs > 10.0 * ours

        widths = expected["a"][1] - expected["a"][0]
        for end, end_of_rliable in zip(bands, expected["a"], strict=True):
            assert (abs(end - end_of_rliable) < 0.15 * widths).all()


def test_a_sample_made_of_a_sample_is_the_same() -> None:
    sample = Sample.of([[1.0], [2.0, 3.0]])
    assert Sample.of(sample) is sample
    assert sample.task_weights.tolist() == [0.5, 0.25, 0.25]
