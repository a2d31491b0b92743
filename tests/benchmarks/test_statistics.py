"""Benchmark statistics against values worked out by hand or by scipy-free brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.statistics import (
    beats_random,
    interquartile_mean,
    mean_of_tasks,
    normalised_score,
    stratified_bootstrap,
)


def test_normalised_score_is_zero_at_random_one_at_expert_and_never_clipped() -> None:
    scores = normalised_score([-10.0, 0.0, 5.0, 20.0], random=-10.0, expert=10.0)
    assert scores.tolist() == [0.0, 0.5, 0.75, 1.5]
    assert normalised_score(-30.0, random=-10.0, expert=10.0) == -1.0


@pytest.mark.parametrize(("random", "expert"), [(23.1, 20.4), (0.0, 0.0)])
def test_expert_not_above_random_is_refused(random: float, expert: float) -> None:
    assert not beats_random(random=random, expert=expert)
    with pytest.raises(ValueError, match=r"expert return .* is not above random return"):
        normalised_score([1.0], random=random, expert=expert)


def test_mean_of_tasks_weighs_tasks_not_episodes() -> None:
    tasks = [np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.0])]
    assert mean_of_tasks(tasks) == 0.5


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


@pytest.mark.parametrize("average", [mean_of_tasks, interquartile_mean])
def test_averages_of_replicates_equal_averages_one_by_one(average) -> None:
    generator = np.random.default_rng(0)
    tasks = [generator.normal(size=(6, 5)), generator.normal(size=(6, 9))]
    together = average(tasks)
    assert together.shape == (6,)
    for index in range(6):
        assert together[index] == pytest.approx(average([task[index] for task in tasks]), abs=1e-12)


def test_bootstrap_interval_has_the_width_the_normal_approximation_gives() -> None:
    # The mean of task means has variance sum(var_t / n_t) / T^2; episodes are redrawn within tasks.
    generator = np.random.default_rng(3)
    tasks = [generator.normal(loc=10.0 * task, size=200) for task in range(4)]
    interval = stratified_bootstrap(tasks, mean_of_tasks, repetitions=20_000)
    error = math.sqrt(sum(task.var() / task.size for task in tasks)) / len(tasks)
    centre = float(mean_of_tasks(tasks))
    assert interval.low == pytest.approx(centre - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(centre + 1.96 * error, abs=0.1 * error)


def test_bootstrap_does_not_mix_tasks() -> None:
    # Without stratification the difference between these two constant tasks would be variance.
    interval = stratified_bootstrap([np.zeros(10), np.ones(10)], mean_of_tasks)
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(11)
    covered = 0
    for seed in range(200):
        tasks = [generator.normal(size=30), generator.normal(size=30)]
        interval = stratified_bootstrap(tasks, mean_of_tasks, repetitions=400, seed=seed)
        covered += interval.low <= 0.0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_is_seeded() -> None:
    tasks = [np.random.default_rng(0).normal(size=12)]
    first = stratified_bootstrap(tasks, interquartile_mean, seed=5)
    assert first == stratified_bootstrap(tasks, interquartile_mean, seed=5)
    assert first != stratified_bootstrap(tasks, interquartile_mean, seed=6)


def test_bootstrap_in_chunks_has_every_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def counting(scores):
        counts.append(scores[0].shape[0])
        return mean_of_tasks(scores)

    monkeypatch.setattr("benchmarks.statistics._CHUNK", 40)
    stratified_bootstrap([np.arange(8.0)], counting, repetitions=23)
    assert counts == [5, 5, 5, 5, 3]


def test_empty_scores_and_odd_confidence_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one of each"):
        mean_of_tasks([np.array([1.0]), np.array([])])
    with pytest.raises(ValueError, match="confidence is 95"):
        stratified_bootstrap([np.ones(3)], mean_of_tasks, confidence=95)
