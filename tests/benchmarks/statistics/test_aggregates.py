"""Figures over many tasks, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.statistics.aggregates import averages, averages_of_suites, profile, suite_of

SCORES = {
    "atari-pong": np.tile([0.0, 0.2, 0.4, 3.0], 2),
    "babyai-go-to": np.full(8, 0.9),
    "babyai-open": np.full(8, 0.5),
}
SOLVED = {"babyai-go-to": np.tile([1.0, 1.0, 1.0, 0.0], 2)}


def test_averages_by_hand() -> None:
    aggregates = {each.name: each for each in averages(SCORES, SOLVED)}
    assert {name: pytest.approx(each.value) for name, each in aggregates.items()} == {
        "normalised mean": (0.9 + 0.9 + 0.5) / 3,
        "normalised median": 0.9,
        "normalised IQM": (4 * 0.5 + 2 * 0.9) / 6,  # without 0, 0.2, 0.4 and 0.9, 0.9, 3
        "optimality gap": ((1.0 + 0.8 + 0.6) / 4 + 0.1 + 0.5) / 3,
        "mean of suites": (0.9 + 0.7) / 2,
        "mean of suites' IQMs": (0.3 + 0.7) / 2,
        "success": 0.75,
    }
    assert [each.tasks for each in aggregates.values()] == [3] * 6 + [1]
    for each in aggregates.values():
        assert each.low <= each.value <= each.high


def test_a_human_is_another_measure_of_games_without_an_expert() -> None:
    human = {"atari-pong": np.tile([0.0, 2.0], 4), "atari-skiing": np.full(8, -1.0)}
    by_name = {each.name: each for each in averages({}, {}, human)}
    assert {name: each.value for name, each in by_name.items()} == {
        "human-normalised mean": 0.0,
        "human-normalised median": 0.0,
        "human-normalised IQM": pytest.approx((4 * -1.0 + 4 * 0.0) / 8),
    }
    assert [each.tasks for each in by_name.values()] == [2, 2, 2]
    suites = averages_of_suites(SCORES, {}, human)
    assert [each.value for each in suites["atari"]][-3:] == [0.0, 0.0, -0.5]
    assert not any("human" in each.name for each in suites["babyai"])


def test_no_interval_where_a_task_has_fewer_than_five_episodes() -> None:
    few = {**SCORES, "babyai-open": np.full(4, 0.5)}
    aggregates = {each.name: each for each in averages(few, SOLVED)}
    assert {each.low for name, each in aggregates.items() if name != "success"} == {None}
    assert aggregates["success"].low is not None  # of a task that has eight
    assert aggregates["normalised mean"].value == pytest.approx((0.9 + 0.9 + 0.5) / 3)
    suites = averages_of_suites(few, SOLVED)
    assert suites["atari"][0].low is not None
    assert suites["babyai"][0].high is None
    drawn = profile(few, (0.0, 0.5))
    assert drawn is not None
    assert (drawn.tasks.low, drawn.episodes.high) == (None, None)
    assert drawn.to_json()["tasks"] == {"value": [3.0, 2.0], "low": None, "high": None}
    five = averages({"babyai-open": np.arange(5.0)}, {})
    assert five[0].low is not None


def test_intervals_have_the_width_that_the_normal_approximation_gives() -> None:
    values = np.random.default_rng(0).normal(size=400)
    mean, *_ = averages({"babyai-open": values}, {})
    drawn = profile({"babyai-open": values}, (0.0,))
    assert drawn is not None
    assert mean.low is not None
    assert mean.high is not None
    assert drawn.episodes.low is not None
    assert drawn.episodes.high is not None
    share = float((values > 0).mean())
    for low, high, error in (
        (mean.low, mean.high, values.std() / 20),
        (drawn.episodes.low[0], drawn.episodes.high[0], np.sqrt(share * (1 - share)) / 20),
    ):
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_suites_have_averages_of_their_own() -> None:
    suites = averages_of_suites(SCORES, SOLVED)
    assert list(suites) == ["atari", "babyai"]
    (mean, median, iqm, gap, success) = suites["babyai"]
    assert (mean.value, mean.tasks) == (pytest.approx(0.7), 2)
    assert (median.value, iqm.value, gap.value) == pytest.approx((0.7, 0.7, 0.3))
    assert (success.name, success.tasks) == ("success", 1)
    assert [each.name for each in suites["atari"]][-1] == "optimality gap"
    assert averages_of_suites({}, SOLVED) == {"babyai": (success,)}


def test_a_profile_counts_episodes_and_tasks_strictly_above() -> None:
    curves = profile(SCORES, (0.0, 0.5, 0.9, 5.0))
    assert curves is not None
    assert curves.episodes.value == pytest.approx(
        ((0.75 + 2.0) / 3, (0.25 + 1.0) / 3, 0.25 / 3, 0.0)
    )
    assert curves.tasks.value[::3] == (3.0, 0.0)
    assert curves.count == 3
    standard = profile(SCORES)
    assert standard is not None
    assert np.allclose(standard.thresholds, np.linspace(-0.2, 1.5, 86))
    for curve in (curves.episodes, curves.tasks):
        for low, value, high in zip(curve.low, curve.value, curve.high, strict=True):
            assert low <= value + 1e-9
            assert value <= high + 1e-9
    assert json.loads(json.dumps(curves.to_json()))["tasks"]["value"][0] == 3.0


def test_without_scores_there_is_nothing() -> None:
    assert averages({}, {}) == ()
    assert averages_of_suites({}, {}) == {}
    assert profile({}) is None


@pytest.mark.parametrize(
    ("task", "suite"), [("atari-pong", "atari"), ("dm_control-cheetah-run", "dm_control")]
)
def test_a_task_says_its_suite(task: str, suite: str) -> None:
    assert suite_of(task) == suite
