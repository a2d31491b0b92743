"""Intervals against the normal approximation, and how often they hold the truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.statistics import bootstrap
from benchmarks.statistics.bootstrap import (
    Interval,
    band_of,
    difference_of,
    interval_of,
    paired_replicates,
    replicates,
    stratified_bootstrap,
)
from benchmarks.statistics.scores import (
    EpisodesAbove,
    interquartile_mean,
    mean_of_tasks,
    probability_of_improvement,
)


def test_interval_has_the_width_the_normal_approximation_gives() -> None:
    # The mean of task means has variance sum(var_t / n_t) / T^2; episodes are redrawn within tasks.
    generator = np.random.default_rng(3)
    normal = [((200,) * 4, 0.95, 1.96), ((100, 300, 150, 250), 0.5, 0.674)]
    for sizes, confidence, deviations in normal:
        tasks = [generator.normal(loc=10.0 * size, size=size) for size in sizes]
        interval = stratified_bootstrap(
            tasks, mean_of_tasks, repetitions=20_000, confidence=confidence
        )
        error = math.sqrt(sum(task.var() / task.size for task in tasks)) / len(tasks)
        centre = float(mean_of_tasks(tasks))
        assert interval.low == pytest.approx(centre - deviations * error, abs=0.1 * error)
        assert interval.high == pytest.approx(centre + deviations * error, abs=0.1 * error)


def test_tasks_are_not_mixed() -> None:
    # Without stratification the difference between these two constant tasks would be variance.
    interval = stratified_bootstrap([np.zeros(10), np.ones(10)], mean_of_tasks)
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_the_truth_is_covered_about_as_often_as_promised() -> None:
    generator = np.random.default_rng(11)
    covered = 0
    for seed in range(200):
        tasks = [generator.normal(size=30), generator.normal(size=30)]
        interval = stratified_bootstrap(tasks, mean_of_tasks, repetitions=400, seed=seed)
        covered += interval.low <= 0.0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_seeded() -> None:
    tasks = [np.random.default_rng(0).normal(size=12)]
    first = stratified_bootstrap(tasks, interquartile_mean, seed=5)
    assert first == stratified_bootstrap(tasks, interquartile_mean, seed=5)
    assert first != stratified_bootstrap(tasks, interquartile_mean, seed=6)
    others, figure = [-task for task in tasks], difference_of(mean_of_tasks)
    for paired in (True, False):
        drawn = [
            paired_replicates(tasks, others, figure, paired=paired, repetitions=7, seed=seed)
            for seed in (5, 5, 6)
        ]
        assert drawn[0].shape == (7,)
        assert np.array_equal(drawn[0], drawn[1])
        assert not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("sizes", [(8, 8), (8, 3)])
def test_every_replicate_draws_as_many_episodes_as_a_task_has(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    chunks: list[Any] = []

    def counting(scores: Any, counts: Any = None) -> Any:
        chunks.append(counts)
        return mean_of_tasks(scores, counts)

    monkeypatch.setattr(bootstrap, "_CHUNK", 5 * sum(sizes))
    drawn = replicates([np.arange(float(size)) for size in sizes], counting, repetitions=23)
    assert drawn.shape == (23,)
    assert [len(counts) for counts in chunks] == [5, 5, 5, 5, 3]
    for counts in chunks:
        assert (counts[:, :8].sum(axis=1) == 8).all()
        assert (counts[:, 8:].sum(axis=1) == sizes[1]).all()
    # Uniform: every episode is drawn about once in a replicate.
    assert np.concatenate(chunks).mean(axis=0) == pytest.approx(np.ones(sum(sizes)), abs=0.7)


def test_a_band_is_an_interval_for_each_figure() -> None:
    tasks = [np.random.default_rng(2).normal(size=30)]
    drawn = replicates(tasks, EpisodesAbove((-1.0, 0.0, 1.0)))
    low, high = band_of(drawn)
    for figure in range(3):
        assert interval_of(drawn[:, figure]) == Interval(low[figure], high[figure])


def test_pairs_cancel_what_both_have_in_common() -> None:
    generator = np.random.default_rng(8)
    hard = [generator.normal(scale=10.0, size=40) for _ in range(3)]
    one = [task + generator.normal(0.5, 0.1, size=40) for task in hard]
    paired = interval_of(paired_replicates(one, hard, difference_of(mean_of_tasks)))
    unpaired = interval_of(paired_replicates(one, hard, difference_of(mean_of_tasks), paired=False))
    error = 0.1 / math.sqrt(120)
    centre = float(mean_of_tasks(one) - mean_of_tasks(hard))
    assert paired.low == pytest.approx(centre - 1.96 * error, abs=0.4 * error)
    assert paired.high == pytest.approx(centre + 1.96 * error, abs=0.4 * error)
    assert unpaired.low < 0.0 < unpaired.high


def test_a_player_is_no_improvement_on_itself() -> None:
    tasks = [np.random.default_rng(0).normal(size=10)]
    drawn = paired_replicates(tasks, tasks, probability_of_improvement)
    assert drawn.tolist() == [0.5] * len(drawn)
    better, worse = [[2.0, 3.0]], [[0.0, 1.0, 1.5]]
    apart = interval_of(paired_replicates(better, worse, probability_of_improvement, paired=False))
    assert (apart.low, apart.high) == (1.0, 1.0)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence is 95"):
        stratified_bootstrap([np.ones(3)], mean_of_tasks, confidence=95)
    for one, other in (([np.ones(3)], [np.ones(4)]), ([[1.0], [1.0, 2.0]], [[1.0, 2.0], [1.0]])):
        with pytest.raises(ValueError, match="expected pairs"):
            paired_replicates(one, other, probability_of_improvement)
